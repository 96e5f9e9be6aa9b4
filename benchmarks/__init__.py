"""Speed and memory of fastlb beside its peers and beside the floor; see docs/performance.md."""

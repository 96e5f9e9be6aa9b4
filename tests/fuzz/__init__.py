"""Random and mutated input: what fastlb forwards against other parsers, and its own parsers against
coverage-guided fuzzing."""

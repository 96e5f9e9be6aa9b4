"""Builds every module of fastlb/_core; metadata is in pyproject.toml.

Environment switches, each off by default:
  FASTLB_DEBUG=1      assertions (BUG_ON), object counting, -O1 -g
  FASTLB_SANITIZE=1   AddressSanitizer and UBSan, implies FASTLB_DEBUG
  FASTLB_FUZZ=1       tells of each edge (tests/fuzz/cover.c), implies FASTLB_SANITIZE
  FASTLB_ANNOTATE=1   the annotated .html beside each generated .c

Each variant has its own folder, build/<variant>; what is built there stays when another
one is built. Beside each module's C stands what Cython had to say of it (<module>.said),
for the gates: a module is translated only when it changed. Test-only modules are in every
variant except the one that wheels are made from: they are built in place or on demand only.
"""

import os
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("fastlb/_core")
TEST_ONLY = "_testing"  # modules with this prefix are left out of wheels


def enabled(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


FUZZ = enabled("FASTLB_FUZZ")
SANITIZE = enabled("FASTLB_SANITIZE") or FUZZ
DEBUG = enabled("FASTLB_DEBUG") or SANITIZE
IN_PLACE = not {"--inplace", "-i", "develop", "editable_wheel"}.isdisjoint(sys.argv)
WITH_TEST_ONLY = IN_PLACE or DEBUG

compile_args = ["-std=gnu11", "-Wall", "-Wno-unused-function", "-fvisibility=hidden"]
compile_args += ["-fno-plt", "-pthread"]
link_args = ["-pthread"]
macros = [("_GNU_SOURCE", "1")]
if DEBUG:
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer"]
    macros.append(("FASTLB_DEBUG", "1"))
else:
    compile_args += ["-O2", "-g1"]
if SANITIZE:
    compile_args.append("-fsanitize=address,undefined")
    link_args.append("-fsanitize=address,undefined")

# What is fuzzed tells which ways it goes; the wrappers around it are of no interest.
covered = ["-fsanitize-coverage=trace-pc"] if FUZZ else []

directives = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
}

headers = sorted(str(path) for path in CORE.glob("*.h"))
extensions = [
    Extension(
        f"fastlb._core.{path.stem}",
        [str(path)],
        include_dirs=[str(CORE)],
        define_macros=macros,
        extra_compile_args=compile_args + (covered if not path.stem.startswith(TEST_ONLY) else []),
        extra_link_args=link_args,
        depends=headers,
    )
    for path in sorted(CORE.glob("*.pyx"))
    if WITH_TEST_ONLY or not path.stem.startswith(TEST_ONLY)
]

if FUZZ:
    variant = "fuzz"
elif DEBUG:
    variant = "sanitize" if SANITIZE else "debug"
else:
    variant = "release" if IN_PLACE else "wheel"
folder = f"build/{variant}"


def translated() -> list[Extension]:
    return cythonize(
        extensions,
        build_dir=f"{folder}/cython",
        compiler_directives=directives,
        annotate=enabled("FASTLB_ANNOTATE"),
        emit_linenums=DEBUG,
        show_all_warnings=True,
        nthreads=os.cpu_count() or 1,
        quiet="-q" in sys.argv,
    )


def translated_and_heard() -> list[Extension]:
    """What `translated` returns; writes the .said of every module that it has made anew.

    C without a .said is of a build that did not get so far: it is made again.
    """
    for file in Path(folder).glob("cython/**/*.c"):
        if not file.with_suffix(".said").exists():
            file.unlink()
    with tempfile.TemporaryFile("w+") as heard:
        begun, stderr = os.stat(heard.fileno()).st_mtime_ns, os.dup(2)
        os.dup2(heard.fileno(), 2)  # Cython's own processes write there too
        try:
            modules = translated()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            said = heard.read().splitlines(keepends=True)
            sys.stderr.write("".join(said))
    for module in modules:
        file = Path(module.sources[0])
        if file.stat().st_mtime_ns >= begun:
            others = [line for line in said if ".pyx:" not in line or f"/{file.stem}.pyx:" in line]
            file.with_suffix(".said").write_text("".join(others))
    return modules


if sys.argv[1:2] not in (["sdist"], ["egg_info"], ["dist_info"]):  # these compile nothing
    extensions = translated() if DEBUG else translated_and_heard()
setup(
    ext_modules=extensions,
    options={
        "build": {
            "build_base": folder,
            "build_platlib": f"{folder}/lib",
            "build_temp": f"{folder}/temp",
        }
    },
)

"""What it costs to read the value of an inserted cookie: known, unknown, wrong.

    python -m benchmarks.cookie_values

Each figure is the best of several runs of one loop without the GIL, so that what else the machine
does counts little. Needs the test-only modules, which are built in place.
"""

from fastlb._core._testing_parts import token
from fastlb._core._testing_sealed import cost, seal, token_cost

RUNS, TIMES = 7, 100_000
MAC, STREAM = bytes(range(16)), bytes(range(16, 32))


def passphrase(number: int) -> tuple[bytes, bytes]:
    return bytes(range(number, number + 64)), bytes(range(number + 64, number + 80))


def show(name: str, ns: float) -> None:
    print(f"{name:46}{ns:9.1f} ns")


def main() -> None:
    keys = [passphrase(number) for number in (1, 2, 3)]
    opaque = token(MAC, STREAM, "10.0.0.1", 80, 7)
    good = seal(keys[:1], "10.0.0.1", 80, 7)
    wrong = good[:-3] + b"AAA"
    # Its mark is right and its cipher text is not: the one value that is decrypted each time.
    other_cipher = (bytes(64), keys[0][1])
    refused = seal([other_cipher], "10.0.0.2", 80, 7)
    for port in range(60000):  # until no table has it
        seal(keys[1:], "10.0.0.3", port, 8)

    def best(passphrases: list[tuple[bytes, bytes]], text: bytes, times: int = TIMES) -> float:
        return min(cost(passphrases, text, times) for _ in range(RUNS))

    def best_token(text: bytes) -> float:
        return min(token_cost(MAC, STREAM, text, TIMES) for _ in range(RUNS))

    show("transparent, known", best_token(opaque))
    show("transparent, wrong", best_token(opaque[:-3] + b"AAA"))
    show("encrypted, known", best(keys[:1], good))
    show("encrypted, known, the third of 3 passphrases", best([*keys[1:], keys[0]], good))
    show("encrypted, wrong, 1 passphrase", best(keys[:1], wrong))
    show("encrypted, wrong, 3 passphrases", best(keys, wrong))
    show("encrypted, decrypted (GIL, AES-SIV)", best(keys[:1], refused, 2000))


if __name__ == "__main__":
    main()

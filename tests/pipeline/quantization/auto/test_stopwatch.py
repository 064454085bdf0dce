from collections.abc import Callable

from onnxpress.quantization.auto.stopwatch import Stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_takes_too_long_is_left_out_and_what_was_spent_is_told() -> None:
    clock, seen = Clock(), []
    watch = Stopwatch(20.0, clock)

    def work(tick: Callable[[int], object]) -> str:
        for _ in range(4):
            clock.now += 2.5
            tick(16)
        return "done"

    def quick(_tick: Callable[[int], object]) -> str:
        return "quick"

    assert watch.attempt("one", quick, "", seen.append) == "quick"
    assert watch.attempt("two", work, "left", seen.append) == "left"  # 8 of 20 s are gone in the middle of it
    assert watch.attempt("three", quick, "", seen.append) == ""
    assert watch.left_out == ["two", "three"] and seen == [0, 0, 16, 16, 16]
    assert watch.left_s() == 10 and watch.at(0.75) == 115
    watch.end("preparation")
    clock.now += 4
    watch.end("search")
    assert watch.spent() == {"preparation": 10.0, "search": 4.0, "total": 14.0, "budget": 20.0}

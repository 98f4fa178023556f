from taxon.service.feedback.recent import Recent
from tests.fakes import FakeClock


def test_the_oldest_are_forgotten_first_by_bytes_and_by_age():
    clock = FakeClock()
    recent = Recent(10, 60.0, clock)
    for name in "abc":
        clock.now += 10
        recent.remember(name, b"1234", name.upper())
    assert recent.find("a") is None  # 12 bytes are too many
    assert (recent.find("b").answer, recent.find("c").picture) == ("B", b"1234")
    clock.now += 55
    assert recent.find("b") is None
    assert recent.find("c")
    recent.remember("d", b"1", "D")
    assert len(recent._answers) == 2
    recent.remember("large", bytes(11), "L")
    assert recent.find("large") is None
    assert recent._byte_count == len(recent._answers) == 0

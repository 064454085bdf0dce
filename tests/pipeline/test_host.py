import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from onnxpress import host

Files = Callable[[Mapping[str, str]], None]
CPUINFO = "model name\t: Some CPU @ 2.60GHz\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """Replace the files of /proc and /sys."""

    def give(content: Mapping[str, str]) -> None:
        monkeypatch.setattr(host, "_read", lambda file: content.get(file, ""))
        host.describe.cache_clear()

    yield give
    host.describe.cache_clear()


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "affinity", lambda: [0, 1, 2, 3])


@pytest.mark.usefixtures("four_cpus")
def test_hyper_threads_count_as_one_core(files: Files) -> None:
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    files(
        {
            f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{text}\n"
            for cpu, text in siblings.items()
        }
    )
    assert host.one_cpu_per_core() == [0, 1]
    assert (host.describe().cpus, host.describe().physical_cores, host.usable_threads()) == (4, 2, 2)


@pytest.mark.usefixtures("four_cpus")
def test_description_of_a_cpu(files: Files) -> None:
    files({"/proc/cpuinfo": CPUINFO, "/proc/meminfo": "MemTotal:       2048 kB\n"})
    found = host.describe()
    assert found.cpu == "Some CPU @ 2.60GHz"
    assert found.features == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert found.memory_bytes == 2048 * 1024
    assert found.quota_cpus is None and host.usable_threads() == 4


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("content", "quota", "threads"),
    [
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, None, 4),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, 2),
        ({"/sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3, 3),
        ({"/sys/fs/cgroup/a/cpu.max": "100000 100000\n", "/sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 1, 1),
    ],
)
def test_quota_of_control_groups_version_2(
    files: Files, content: dict[str, str], quota: float | None, threads: int
) -> None:
    files({"/proc/self/cgroup": "0::/a/b\n"} | content)
    assert (host.describe().quota_cpus, host.usable_threads()) == (quota, threads)


@pytest.mark.usefixtures("four_cpus")
def test_quota_of_control_groups_version_1(files: Files) -> None:
    files(
        {
            "/proc/self/cgroup": "4:memory:/box\n1:cpu,cpuacct:/docker/abc\n0::/\n",
            # the group's own path is not visible inside the container: its files are at the root
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1073741824\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert (host.describe().quota_cpus, host.describe().memory_bytes) == (2, 2**30)


def test_no_limit_in_version_1_is_minus_one(files: Files) -> None:
    files(
        {
            "/proc/self/cgroup": "1:cpu:/\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert host.describe().quota_cpus is None


@pytest.mark.usefixtures("four_cpus")
def test_disturbances_are_read_for_the_usable_cpus_only(files: Files) -> None:
    files(
        {
            "/proc/stat": "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 0 2 3 0 0 0 4 0 0\ncpu1 10 0 0 0 0 0 0 1 5 0\n"
            "cpu9 7 7 7 7 7 7 7 7 0 0\nintr 5\n",
            "/proc/self/cgroup": "0::/\n",
            "/sys/fs/cgroup/cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_usec 100\n",
        }
    )
    found = host.disturbances()
    assert (found.ticks, found.stolen_ticks, found.throttled) == (21, 5, 3)


def test_disturbances_only_grow() -> None:
    before = host.disturbances()
    sum(range(1_000_000))
    after = host.disturbances()
    assert after.ticks >= before.ticks and after.stolen_ticks >= before.stolen_ticks
    assert after.preempted >= before.preempted


def test_memory_does_not_change_the_fingerprint_but_the_cpu_does(files: Files) -> None:
    def fingerprint(content: dict[str, str]) -> str:
        files(content)
        return host.describe().fingerprint

    one = fingerprint({"/proc/cpuinfo": CPUINFO, "/proc/meminfo": "MemTotal: 2048 kB"})
    assert one == fingerprint({"/proc/cpuinfo": CPUINFO, "/proc/meminfo": "MemTotal: 4096 kB"})
    assert one != fingerprint({"/proc/cpuinfo": CPUINFO.replace("amx_int8", "")})


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is a fact of Linux")
def test_peak_memory_is_not_inherited_from_the_parent() -> None:
    # ru_maxrss of a child shows what its parent once used: 400 MB here.
    code = (
        "import subprocess, sys; block = bytearray(400_000_000); block[::4096] = b'x' * len(block[::4096]);"
        "print(subprocess.run([sys.executable, '-c',"
        "'from onnxpress.host import peak_memory_bytes; print(peak_memory_bytes())'],"
        "capture_output=True, text=True, check=True).stdout)"
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 1_000_000 < peak < 100_000_000


def test_conditions_are_what_the_system_tells_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "/sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "/sys/devices/system/cpu/smt/active": "1\n",
        "/proc/pressure/cpu": "some avg10=12.50 avg60=1.00 total=1\nfull avg10=0.00 avg60=0.00 total=0\n",
    }
    monkeypatch.setattr(host, "_read", lambda file: files.get(file, ""))
    found = host.conditions()
    assert (found.governor, found.turbo, found.smt, found.cpu_pressure_pct) == ("performance", False, True, 12.5)
    monkeypatch.setattr(host, "_read", lambda _: "")
    found = host.conditions()
    assert (found.governor, found.turbo, found.smt, found.cpu_pressure_pct) == (None, None, None, None)

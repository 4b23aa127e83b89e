"""What the machine offers, and where models run."""

from pathlib import Path

import pytest

from neuroedge.runtimes.device import Gpu, Router, available_cores, cpu_features, machine, split
from neuroedge.runtimes.memory import pressure, system_memory

GIB = 1 << 30


def gpu(index: int, *, free_gib: int) -> Gpu:
    """A GPU of 24 GiB."""
    return Gpu(index=index, name="test", total_bytes=24 * GIB, free_bytes=free_gib * GIB)


def router(
    wanted: str = "auto", *, free_gib: tuple[int, ...] = (), kinds: frozenset[str] = frozenset({"cpu", "cuda"})
) -> Router:
    """A router on a machine with such GPUs and a runtime that can use `kinds`."""
    found = [gpu(i, free_gib=free) for i, free in enumerate(free_gib)]
    return Router(wanted, gpus=lambda: found, runtime_devices=lambda runtime: kinds)  # type: ignore[arg-type]


def test_without_a_gpu_everything_runs_on_the_cpu() -> None:
    """Whatever the task."""
    assert router().place(role="chat", runtime="llama-cpp", need_bytes=GIB) == "cpu"


def test_of_several_gpus_the_one_with_most_room_is_taken() -> None:
    """Free memory less what is promised to loads under way."""
    several = router(free_gib=(4, 10, 9))
    assert several.place(role="chat", runtime="llama-cpp", need_bytes=2 * GIB) == "cuda:1"
    assert several.place(role="chat", runtime="llama-cpp", need_bytes=2 * GIB, held={"cuda:1": 3 * GIB}) == "cuda:2"


def test_a_model_that_fits_no_gpu_runs_on_the_cpu_unless_forced() -> None:
    """MODEL_DEVICE=cuda forces it."""
    assert router(free_gib=(1,)).place(role="chat", runtime="llama-cpp", need_bytes=2 * GIB) == "cpu"
    assert router("cuda", free_gib=(1,)).place(role="chat", runtime="llama-cpp", need_bytes=2 * GIB) == "cuda:0"


def test_small_tasks_stay_on_the_cpu() -> None:
    """Voice activity takes less time than the way to the GPU; forced, it goes there."""
    assert router(free_gib=(20,)).place(role="voice_activity", runtime="silero-vad", need_bytes=1) == "cpu"
    assert router("cuda", free_gib=(20,)).place(role="voice_activity", runtime="silero-vad", need_bytes=1) == "cuda:0"


@pytest.mark.parametrize("wanted", ["auto", "cuda", "mps"])
def test_a_runtime_built_for_the_cpu_only_stays_there(wanted: str) -> None:
    """Forcing a device does not make a library able to use it."""
    only_cpu = router(wanted, free_gib=(20,), kinds=frozenset({"cpu"}))
    assert only_cpu.place(role="chat", runtime="llama-cpp", need_bytes=1) == "cpu"


def test_cpu_forced_means_cpu() -> None:
    """Even with GPUs."""
    assert router("cpu", free_gib=(20,)).place(role="chat", runtime="llama-cpp", need_bytes=1) == "cpu"


def test_processor_features_are_read_by_their_names(tmp_path: Path) -> None:
    """A server processor's and an ARM's flags; no such file is no error."""
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("model name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_bf16 avx512_bf16\n")
    arm.write_text("Features\t: asimd asimddp i8mm bf16\n")
    cpu_features.cache_clear()
    assert cpu_features(x86) == ("Xeon", ("AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16", "AMX BF16"))
    cpu_features.cache_clear()
    assert cpu_features(arm)[1] == ("dot product (ARM)", "int8 matrix (ARM)", "BF16 (ARM)")
    cpu_features.cache_clear()
    assert cpu_features(tmp_path / "none")[1] == ()
    cpu_features.cache_clear()


def test_a_containers_limits_count(tmp_path: Path) -> None:
    """Its quota of cores and its memory, not the machine's."""
    assert available_cores(tmp_path) >= 1
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert available_cores(tmp_path) == 1
    (tmp_path / "memory.max").write_text(str(64 << 20))
    (tmp_path / "memory.current").write_text(str(48 << 20))
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 8388608\n")
    found = system_memory(tmp_path)
    assert found.total_bytes == 64 << 20
    assert found.available_bytes == 24 << 20


def test_the_machine_is_described() -> None:
    """This one has a core, a name and memory."""
    found = machine()
    assert found.cores >= 1
    assert found.cpu
    assert 0 < system_memory().available_bytes <= system_memory().total_bytes


def test_pressure_levels_have_their_bounds() -> None:
    """normal < 0.70, high < 0.85, critical < 0.95, emergency."""
    shares = (0.0, 0.699, 0.70, 0.849, 0.85, 0.949, 0.95, 2.0)
    levels = ["normal", "normal", "high", "high", "critical", "critical", "emergency", "emergency"]
    assert [pressure(share * 1000, 1000) for share in shares] == levels


def test_device_names_are_split() -> None:
    """Kind and index."""
    assert [split(name) for name in ("cpu", "cuda:3", "mps")] == [("cpu", 0), ("cuda", 3), ("mps", 0)]

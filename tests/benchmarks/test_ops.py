"""`python -m benchmarks ops` from end to end on a tiny shape."""

import pytest

from benchmarks import ops, results
from benchmarks.__main__ import main
from benchmarks.implementations import Implementation
from liftplace import place_loss

TINY = ["ops", "--shapes", "1,2,8,8", "--repeats", "1", "--threads", "1",
        "--implementations", "torch", "mse", "copy"]  # fmt: skip


def test_ops_writes_rows_and_prints_table_and_targets(tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    rows = results.load(tmp_path / "ops_cpu.csv")
    assert list(rows[0]) == list(results.COLUMNS)
    measured = {(row["op"], row["implementation"], row["phase"]) for row in rows}
    phases = ("forward", "backward", "both")
    want = {(op, name, phase) for op in ("place", "lift") for phase in phases
            for name in ("naive", "torch", "mse")}  # fmt: skip
    assert measured == want | {("place", "copy", "both"), ("lift", "copy", "both")}
    optional = {"driver", "triton", "group_size", "l2", "bytes_peak", "bytes_kept", "gb_per_s",
                "launches"}  # fmt: skip
    for row in rows:
        assert all(row[key] for key in results.COLUMNS if key not in optional), row
        assert 0 < float(row["ms_p20"]) <= float(row["ms_p50"]) <= float(row["ms_p80"])
        assert (row["threads"], row["repeats"], row["shape"]) == ("1", "1", "1x2x8x8")
        if row["phase"] == "both":
            assert float(row["bytes_peak"]) >= float(row["bytes_kept"]) >= 0
    printed = capsys.readouterr().out
    assert "torch, times as fast as naive" in printed and "kept memory / naive's" in printed


@pytest.mark.gpu
def test_ops_on_cuda(tmp_path):
    tiny = ["ops", "--device", "cuda", "--shapes", "1,2,16,16", "--repeats", "1",
            "--group_sizes", "16"]  # fmt: skip
    assert main([*tiny, "--out", str(tmp_path), "--implementations", "triton", "mse", "copy"]) == 0
    rows = results.load(tmp_path / "ops_cuda.csv")
    assert {row["l2"] for row in rows} == {"cold", "warm"}
    assert {"eager", "graph"} == {row["mode"] for row in rows if row["implementation"] == "triton"}
    assert all(int(row["launches"]) > 0 for row in rows
               if row["mode"] == "eager" and row["phase"] == "both")  # fmt: skip


def test_a_red_gate_times_nothing(tmp_path, capsys, monkeypatch):
    wrong = Implementation("wrong", lambda s, t: place_loss(s, t, group_size=8))
    monkeypatch.setattr(ops, "implementations", lambda *_: ([wrong], {}))
    assert main([*TINY, "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "correctness gate is red, nothing is timed: wrong is wrong" in captured.err
    assert captured.out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shapes", "8,8"], "'8,8' is no shape: write B,C,H,W"),
        (["--shapes", "8,a,8"], "'8,a,8' is no shape"),
        (["--repeats", "0"], "'0' is no count"),
        (["--implementations", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_bad_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ops", *flags])
    assert stop.value.code == 2 and message in capsys.readouterr().err

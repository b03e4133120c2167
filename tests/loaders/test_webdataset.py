"""What is the portable back end's own, and the fixed one's."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.system.cpus import available_cpus, cpus_per_rank
from fastssl.views import ViewSpec
from tests.patience import HANGS_AFTER_S, is_alive, wait_until

VIEW = ViewSpec.squash(16)


def test_ranks_share_the_cores(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert cpus_per_rank() == available_cpus()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10000")
    assert cpus_per_rank() == 1


def test_workers_follow_the_affinity_mask():
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert cpus_per_rank() == 1
    finally:
        os.sched_setaffinity(0, mask)


def test_too_small_shared_memory_is_found_before_it_kills_a_worker(dataset_path):
    config = LoaderConfig(
        path=dataset_path,
        loader="webdataset",
        global_batch_size=40,
        num_threads=64,
        prefetch_batches=1000,
    )
    with pytest.raises(InputError, match=r"/dev/shm \(\d+ MiB free\) must hold 64,003 batches"):
        build_loader(config, ViewSpec.squash(224, count=9))


def test_workers_die_with_a_killed_rank(dataset_path):
    script = textwrap.dedent(
        f"""
        import os, subprocess, time
        from fastssl.config import LoaderConfig
        from fastssl.loaders import build_loader
        from fastssl.views import ViewSpec
        config = LoaderConfig(path={str(dataset_path)!r}, loader="webdataset",
                              global_batch_size=8, num_threads=2)
        batches = iter(build_loader(config, ViewSpec.squash(16)))
        next(batches)
        found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
        print(found.stdout.split(), flush=True)
        time.sleep(60)
        """
    )
    rank = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid.strip("',")) for pid in rank.stdout.readline().strip("[]\n").split()]
    rank.kill()
    rank.wait()
    assert len(workers) >= 2
    wait_until(lambda: not any(map(is_alive, workers)), "a worker outlives its rank")


def test_fixed_repeats_one_batch_and_moves_on(dataset_path):
    config = LoaderConfig(path=dataset_path, loader="fixed", global_batch_size=8, num_threads=1)
    loader = build_loader(config, VIEW)
    first, second, third = itertools.islice(loader, 3)
    assert first.images.data_ptr() == second.images.data_ptr() == third.images.data_ptr()
    assert torch.equal(first.sample_ids, third.sample_ids)
    assert loader.state_dict()["position"] == 24
    state = loader.state_dict()
    loader.close()
    resumed = build_loader(config, VIEW)
    resumed.load_state_dict(state)
    assert torch.equal(next(iter(resumed)).sample_ids, first.sample_ids)
    resumed.close()


def test_a_worker_that_hangs_in_a_read_does_not_outlive_close(dataset_path):
    """A pread that never returns, as on a dead network file system."""
    script = textwrap.dedent(
        f"""
        import os, time
        from fastssl.config import LoaderConfig
        from fastssl.loaders import build_loader
        from fastssl.views import ViewSpec
        read = os.pread
        def hang(descriptor, length, offset):
            if offset > 4000:
                time.sleep(1000)
            return read(descriptor, length, offset)
        os.pread = hang
        config = LoaderConfig(path={str(dataset_path)!r}, loader="webdataset",
                              global_batch_size=1, num_threads=1, order="chunked", seed=1)
        loader = build_loader(config, ViewSpec.squash(16))
        batches = loader.one_pass()
        next(batches)
        time.sleep(0.5)
        loader.close()
        """
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=HANGS_AFTER_S)
    assert done.returncode == 0


def test_an_unknown_back_end_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean 'webdataset'"):
        LoaderConfig(loader="webdatset")

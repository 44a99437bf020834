"""What the command imports, it imports without garbage collections."""

import gc

import invrep.jobs.config
import invrep.jobs.run


def test_no_garbage_is_collected_while_a_job_is_imported(job, monkeypatch):
    enabled = []
    check = invrep.jobs.config.check
    monkeypatch.setattr(invrep.jobs.config, "check", lambda config: enabled.append(gc.isenabled()) or check(config))
    monkeypatch.setattr(invrep.jobs.run, "run", lambda _: enabled.append(gc.isenabled()))
    assert job().status == 0
    assert enabled == [False, True]
    assert job("restarts=two").status == 1 and gc.isenabled()
    gc.unfreeze()

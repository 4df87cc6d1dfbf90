"""Entry point of the finetune image: the stage itself, or the launcher of its workers, or one of them."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import ENV_TERMINATION_LOG, Stage
from embedding_stages.encoder.hardware import limit_library_threads, usable_cpus
from embedding_stages.finetune.launch import WORKER_LOGS, Plan, launch, worker_log
from embedding_stages.runner import run


def main() -> int:
    if WORKER_LOGS in os.environ:
        return _train()
    try:
        plan = Plan.of(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if not plan.several:
        return _train()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // plan.processes)))
    limit_library_threads()
    return launch(plan, os.environ)


def _train() -> int:
    limit_library_threads()
    from embedding_stages.finetune.stage import work  # imports torch, which reads the limit
    from embedding_stages.finetune.world import World

    worker = WORKER_LOGS in os.environ
    world = World.of(os.environ) if worker else World.alone()
    env = dict(os.environ)
    if worker:
        env[ENV_TERMINATION_LOG] = str(worker_log(world.local_rank, env[WORKER_LOGS]))
    code = run(Stage.FINETUNE, lambda context: work(context, world), env, leads=world.leads)
    if world.size > 1:
        world.leave(code)
    if world.size > 1 and code != 0:
        # At once: taking down a group whose peers are stuck may hang, and they wait until this process is gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Where the time of a step goes that generates a token for each of several sequences.

    python -m benchmarks.batch_profile > benchmarks/results/profile-batch8.txt

`halfbyte bench --profile` shows the same of one sequence.
"""

from __future__ import annotations

import time

from halfbyte.runtime.backends.cpu.executor import CPUExecutor
from halfbyte.runtime.backends.cpu.floors import measure
from halfbyte.runtime.backends.cpu.profile import Profiler
from halfbyte.tools import console
from halfbyte.tools.profile import phase
from halfbyte.tools.profile_view import show_phase

from . import batch, common
from .engines import Ours

WARM_UP = 4  # steps that are not counted


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(batch.MODEL,))
    parser.add_argument("--sequences", type=common.positive, default=8)
    parser.add_argument("--prompt-tokens", type=common.positive, default=128)
    parser.add_argument("--gen-tokens", type=common.positive, default=64)
    args = parser.parse_args()
    n, context = args.sequences, args.prompt_tokens + args.gen_tokens + WARM_UP
    for model in common.chosen_models(args):
        engine = Ours(common.resolve(model), context=context, threads=args.threads, sequences=n)
        executor = engine._executor
        assert isinstance(executor, CPUExecutor)
        batch.fill(engine, n, args.prompt_tokens)
        batch.step_speed(engine, n, WARM_UP, seed=1)
        with Profiler(executor) as profiler:
            begin = time.perf_counter()
            tps = batch.step_speed(engine, n, args.gen_tokens, seed=2)
            wall = time.perf_counter() - begin
            steps = profiler.take()
        found = phase("decode", steps, wall, measure(executor), executor.kv)
        what = f"mean of {len(steps)} steps of {n} sequences, {tps:.1f} tokens/s"
        show_phase(found, f"{common.label(model)}, {args.threads} threads: {what}", " per step")
        console.say()
        engine.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

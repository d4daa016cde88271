"""The command line. Heavy modules are imported inside the commands, so that `longspan --help` answers at once."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from longspan import __version__
from longspan.errors import LongspanError, MissingExtra, UsageError
from longspan.terminal import printable

if TYPE_CHECKING:
    from longspan.corpus import Corpus
    from longspan.llm import LLM
    from longspan.trace import Span
    from longspan.workflows import Answer, Settings

app = typer.Typer(
    name="longspan",
    help="Ask questions of texts far larger than any model's window, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
index_app = typer.Typer(help="The indexes kept in the cache.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(index_app, name="index")
dataset_app = typer.Typer(help="Training data made by workflows.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(dataset_app, name="dataset")

EPILOG = """
Examples:

  longspan ask manual.pdf "How long is the warranty?"

  longspan ask src/ docs/ "Where is the retry limit set?" --json

  zcat policy.txt.gz | longspan ask - "Who may upload?"

  longspan ask book.txt "Summarise it." --model openai:NAME --base-url http://127.0.0.1:8080/v1
"""


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        typer.echo(f"longspan {__version__}")
        raise typer.Exit


@app.command(epilog=EPILOG)
def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... QUESTION",
            help="Files, folders, globs, URLs or - for stdin; then the question, last.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="[WORKFLOW@]MODEL: smollm2, hub id, folder, file.gguf, openai:NAME.")
    ] = "smollm2",
    base_url: Annotated[str | None, typer.Option(help="The endpoint's URL, for openai:NAME.")] = None,
    window: Annotated[
        int | None, typer.Option(help="The window of openai:NAME in tokens, where its server does not tell.", min=512)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            help="auto, direct, retrieve, map-reduce, lambda-rlm, inftythink, extagents, agenticlu, rlm, coding-agent, "
            "laser or memex.",
            show_default="auto",
        ),
    ] = None,
    reader: Annotated[
        str, typer.Option(help="auto, extract (quotes, for small models) or generate (the model writes).")
    ] = "auto",
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 256,
    budget: Annotated[
        str | None,
        typer.Option(
            help="The most the run may spend: tokens, as 20000, or any of calls=50,tokens=20000,seconds=60,cost=0.5."
        ),
    ] = None,
    prices: Annotated[
        str | None, typer.Option(help="Currency units per million tokens, INPUT,OUTPUT[,CACHED]: shows the cost.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write what was done to FILE, for `longspan trace`.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the answer: no progress, citations or cost.")
    ] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Go on asking about the same text.")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show what each workflow would cost, and ask nothing."),
    ] = False,
) -> None:
    """Answer a question from a text of any size, with the places where the answer stands."""
    from longspan.asking import Spec
    from longspan.corpus import Corpus
    from longspan.llm import open_llm

    sources, question = _sources_and_question(arguments, interactive)
    spec = Spec.parse(model)
    name = workflow or spec.workflow or "auto"
    screen = _Screen(quiet=quiet, as_json=as_json)
    settings = _settings(reader, max_tokens, budget, screen)
    _check_trace(trace)
    llm = open_llm(spec.model, base_url=base_url, prices=prices, window=window, asking=True)
    if hasattr(llm, "warm"):
        llm.warm()  # the weights load while the text is read and searched
    corpus = Corpus.open(sources, stdin=sys.stdin.buffer if "-" in sources else None)
    for skipped in corpus.skipped:
        screen.tell(f"left out: {skipped.name}: {skipped.reason}")
    if explain:
        _explain(question, corpus, llm, settings, as_json=as_json)
        return
    if question:
        _answer(question, corpus, llm, name, settings, screen, trace)
    if interactive:
        _converse(corpus, llm, name, settings, screen, trace, question)


def _explain(question: str, corpus: Corpus, llm: LLM, settings: Settings, *, as_json: bool) -> None:
    from dataclasses import asdict

    from longspan.terminal import show_ways
    from longspan.workflows.auto import explain

    if not question:
        raise UsageError("--explain needs the question: put it last.")
    ways = explain(question, corpus, llm, settings)
    if as_json:
        typer.echo(json.dumps([asdict(way) for way in ways], ensure_ascii=False))
    else:
        show_ways([(way.name, way.calls, way.tokens, way.why) for way in ways])


def _sources_and_question(arguments: list[str], interactive: bool) -> tuple[list[str], str]:
    """Split the arguments; interactively the question may be left to be typed."""
    if interactive and all(_is_source(argument) for argument in arguments):
        return arguments, ""
    *sources, question = arguments
    if not question.strip():
        raise UsageError("The question is empty: say what you want to know.")
    if not sources:
        if sys.stdin.isatty() or _is_source(question):
            raise UsageError('Say what to read and what to ask: longspan ask SOURCE... "QUESTION".')
        sources = ["-"]
    if "-" in sources and interactive:
        raise UsageError("Questions are typed on stdin with -i, so the text cannot come from there: save it to a file.")
    if _is_source(question) and " " not in question:
        raise UsageError(
            f'{question} is a file, not a question: the question comes last, as in longspan ask {question} "...".'
        )
    return sources, question


def _is_source(argument: str) -> bool:
    return argument == "-" or argument.startswith(("http://", "https://")) or os.path.exists(argument)  # noqa: PTH110


def _settings(reader: str, max_tokens: int, budget: str | None, screen: _Screen) -> Settings:
    from longspan.workflows import Budget, Settings

    if reader not in ("auto", "extract", "generate"):
        raise UsageError(f"There is no reader named {reader!r}: choose auto, extract or generate.")
    return Settings(
        reader=reader,  # type: ignore[arg-type]  # checked above
        max_tokens=max_tokens,
        budget=Budget.parse(budget) if budget is not None else None,
        on_text=screen.text,
        on_progress=screen.progress,
    )


def _check_trace(trace: Path | None) -> None:
    """A trace that cannot be written should be known before the work, not after."""
    if trace is not None and (not trace.parent.is_dir() or trace.is_dir()):
        raise UsageError(f"Cannot write the trace to {trace}: its folder does not exist or it is a folder.")
    if trace is not None and not os.access(trace.parent, os.W_OK):
        raise UsageError(f"Cannot write the trace to {trace}: its folder may not be written.")


def _answer(
    question: str, corpus: Corpus, llm: LLM, workflow: str, settings: Settings, screen: _Screen, trace: Path | None
) -> Answer:
    import asyncio

    from longspan import trace as traces
    from longspan.workflows import run

    started = time.perf_counter()
    answer = asyncio.run(run(question, corpus, llm, workflow, settings))
    answer.usage.seconds = time.perf_counter() - started
    screen.finish(answer)
    if trace is not None and answer.trace is not None:
        traces.save(answer.trace, trace)
    return answer


def _converse(
    corpus: Corpus, llm: LLM, workflow: str, settings: Settings, screen: _Screen, trace: Path | None, asked: str
) -> None:
    """Questions one after the other; one that points back to the last is given the last one's words."""
    from longspan.workflows.question import standalone

    while True:
        try:
            line = input("\n? " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            return
        question = standalone(line, asked)
        if question != line:
            screen.tell(f"understood as: {question}")
        asked = question
        try:
            _answer(question, corpus, llm, workflow, settings, screen, trace)
        except LongspanError as error:
            typer.echo(f"longspan: {error}", err=True)


class _Screen:
    """The answer on stdout, everything else on stderr; nothing that a document holds can move the cursor."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._quiet = quiet
        self._json = as_json
        self._live = not quiet and sys.stderr.isatty()
        self._said = False
        self._line = ""
        self._shown = 0.0

    def tell(self, line: str) -> None:
        if not self._quiet:
            self._clear()
            print(printable(line), file=sys.stderr)  # noqa: T201

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._live or (done < total and now - self._shown < 0.1):
            return
        self._shown = now
        self._clear()
        self._line = f"{what} {done}/{total}" if total else f"{what} ..."
        sys.stderr.write(self._line)
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._line:
            sys.stderr.write(f"\r{' ' * len(self._line)}\r")
            sys.stderr.flush()
            self._line = ""

    def text(self, piece: str) -> None:
        if self._json:
            return
        self._clear()
        self._said = True
        sys.stdout.write(printable(piece))
        sys.stdout.flush()

    def finish(self, answer: Answer) -> None:
        self._clear()
        if self._json:
            sys.stdout.write(json.dumps(answer.to_dict(), ensure_ascii=True) + "\n")
            sys.stdout.flush()
            return
        if not self._said:
            sys.stdout.write(printable(answer.text))
        self._said = False
        sys.stdout.write("\n")
        sys.stdout.flush()
        if self._quiet:
            return
        lines = [""]
        if answer.refused and answer.citations:
            lines.append("Nearest places:")
        for number, citation in enumerate(answer.citations, 1):
            page = f", page {citation.page}" if citation.page else ""
            at = f"{citation.line_start}" + (f"-{citation.line_end}" if citation.line_end > citation.line_start else "")
            lines.append(f"[{number}] {citation.document}:{at}{page}  (score {citation.score:.2f})")
            quote = " ".join(citation.quote.split())
            lines.append(f"    “{quote[:300]}{'…' if len(quote) > 300 else ''}”")
        if answer.note:
            lines.append(f"note: {answer.note}")
        usage = answer.usage
        cost = f", cost {usage.cost:.4f}" if usage.cost is not None else ""
        lines.append(
            f"cost: {usage.calls} model calls, {usage.prompt_tokens} tokens read ({usage.cached_tokens} cached), "
            f"{usage.completion_tokens} written, {usage.seconds:.1f} s{cost}"
        )
        print(printable("\n".join(lines)), file=sys.stderr)  # noqa: T201


@app.command("trace")
def trace_command(
    file: Annotated[Path, typer.Argument(help="A file written by `longspan ask --trace`.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page to OUT.", metavar="OUT")] = None,
    otlp: Annotated[
        Path | None, typer.Option(help="Write OpenTelemetry spans (OTLP as JSON) to OUT.", metavar="OUT")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run again over the same sources, each call answered from the trace.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --replay: print one JSON object.")] = False,
) -> None:
    """Show a run as a tree: each call, its tokens and seconds; or write it as a page or as spans, or run it again."""
    from longspan import trace as traces
    from longspan.terminal import show_trace

    root = traces.load(file)
    if html is not None:
        from longspan.trace_html import page

        _write(html, page(root))
    if otlp is not None:
        from longspan.trace_otlp import export

        _write(otlp, json.dumps(export(root)))
    if replay:
        _replay(root, _Screen(quiet=False, as_json=as_json))
    elif html is None and otlp is None:
        show_trace(root)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongspanError(f"Cannot write {path}: {error.strerror or error}.") from error


def _replay(root: Span, screen: _Screen) -> None:
    import asyncio

    from longspan.corpus import Corpus
    from longspan.llm import open_llm
    from longspan.workflows import Settings, replay

    facts = root.attributes
    if "sources" not in facts:
        raise LongspanError("This trace does not say what a replay needs: it is of an older version of longspan.")
    corpus = Corpus.open(facts["sources"], stdin=sys.stdin.buffer if "-" in facts["sources"] else None)
    counter = open_llm(facts["model"])  # for its tokenizer alone
    settings = Settings(on_text=screen.text, on_progress=screen.progress)
    screen.finish(asyncio.run(replay(root, corpus, counter, settings)))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, cores, instruction sets, extras that are present, and where the caches are."""
    from longspan.doctor import report, show

    facts = report()
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        show(facts)


@index_app.command("list")
def index_list(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the indexes: key, sources, sizes."""
    from longspan.retrieval import stored

    items = list(stored())
    if as_json:
        rows = [{name: getattr(item, name) for name in item.__slots__} for item in items]
        typer.echo(json.dumps(rows))
        return
    for item in items:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.used))
        sources = " ".join(item.sources)
        typer.echo(
            printable(
                f"{item.key}  {item.documents} documents, {item.passages} passages, "
                f"{item.bytes / 1e6:.1f} MB, used {used}  {sources[:120]}"
            )
        )
    if not items:
        typer.echo("No indexes yet: the first `longspan ask` over a text makes one.", err=True)


@index_app.command("build")
def index_build(
    sources: Annotated[list[str], typer.Argument(help="Files, folders, globs, URLs.")],
    vectors: Annotated[bool, typer.Option(help="Also embed every passage.")] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that will read: its tokenizer counts.")
    ] = "smollm2",
) -> None:
    """Make or update an index ahead of the first question."""
    from longspan.asking import Spec
    from longspan.corpus import Corpus
    from longspan.llm import open_llm
    from longspan.retrieval import Index

    screen = _Screen(quiet=False, as_json=False)
    llm = open_llm(Spec.parse(model).model)
    index = Index.open(Corpus.open(sources), llm.count_batch, tokenizer=llm.tokenizer_name, progress=screen.progress)
    if vectors:
        index.embed_all()
    screen.tell(f"index {index.folder.name} is ready")


@index_app.command("info")
def index_info(key: Annotated[str, typer.Argument(help="The key, or its beginning.")]) -> None:
    """Show one index."""
    from longspan.retrieval import info

    for name, value in info(key).items():
        typer.echo(printable(f"{name}: {value}"))


@index_app.command("drop")
def index_drop(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Drop every index.")] = False,
) -> None:
    """Remove indexes; they are made again when needed."""
    from longspan.retrieval import drop, stored

    if not keys and not everything:
        raise UsageError("Say which index to drop (`longspan index list` shows the keys), or --all.")
    for key in [item.key for item in stored()] if everything else keys or []:
        drop(key)
        typer.echo(f"dropped {key}")


@dataset_app.command("inftythink")
def dataset_inftythink(
    source: Annotated[Path, typer.Argument(help="JSON lines: question and solution, <think>...</think>...")],
    out: Annotated[Path, typer.Option(help="The file of rows, for TRL's SFTTrainer; a stopped run goes on there.")],
    model: Annotated[str, typer.Option("--model", "-m", help="What writes the summaries.")] = "smollm2",
    base_url: Annotated[str | None, typer.Option(help="The endpoint's URL, for openai:NAME.")] = None,
    window: Annotated[int | None, typer.Option(help="The window of openai:NAME, in tokens.", min=512)] = None,
    eta: Annotated[int, typer.Option(help="The longest segment of thinking, in tokens.", min=8)] = 4096,
) -> None:
    """Cut long solutions into short rounds, each begun from a summary of the ones before."""
    from longspan import datasets
    from longspan.llm import open_llm

    llm = open_llm(model, base_url=base_url, window=window)
    screen = _Screen(quiet=False, as_json=False)
    inputs, rows = datasets.inftythink(source, out, llm, eta=eta, progress=screen.progress)
    screen.tell(f"{inputs} solutions, {rows} rows made now: {out}")


@dataset_app.command("agenticlu")
def dataset_agenticlu(
    sources: Annotated[list[str], typer.Argument(help="Files, folders, globs or URLs: the text that is asked about.")],
    questions: Annotated[Path, typer.Option(help="JSON lines: question and answer.")],
    out: Annotated[Path, typer.Option(help="The folder of sft.jsonl and dpo.jsonl, in TRL's formats.")],
    model: Annotated[str, typer.Option("--model", "-m", help="What asks and answers.")] = "smollm2",
    base_url: Annotated[str | None, typer.Option(help="The endpoint's URL, for openai:NAME.")] = None,
    window: Annotated[int | None, typer.Option(help="The window of openai:NAME, in tokens.", min=512)] = None,
    depth: Annotated[int, typer.Option(help="Clarifications one after the other.", min=1)] = 2,
    width: Annotated[int, typer.Option(help="Clarifications sampled at each step.", min=1)] = 8,
) -> None:
    """Grow trees of clarifying questions, and export the paths to the best and the worst answers."""
    from longspan import datasets
    from longspan.corpus import Corpus
    from longspan.llm import open_llm

    llm = open_llm(model, base_url=base_url, window=window)
    screen = _Screen(quiet=False, as_json=False)
    corpus = Corpus.open(sources)
    inputs, trees = datasets.agenticlu(corpus, questions, out, llm, depth=depth, width=width, progress=screen.progress)
    screen.tell(f"{inputs} questions, {trees} trees grown now: {out}")


@app.command("eval")
def eval_command(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks or groups of tasks; without any, they are listed.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="[WORKFLOW@]MODEL[+METHOD...]: what answers; repeat to compare. Default: smollm2."),
    ] = None,
    lengths: Annotated[str | None, typer.Option(help="Lengths in tokens, as in 1k,2k,8k.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples for each cell of a task.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed gives other samples.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Option("--set", "-T", help="An argument of the tasks, NAME=VALUE; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many samples of each task.", min=1)] = None,
    time_limit: Annotated[int | None, typer.Option(help="Seconds after which a sample has failed.", min=1)] = None,
    base_url: Annotated[str | None, typer.Option(help="The endpoint's URL, for openai:NAME.")] = None,
    window: Annotated[int | None, typer.Option(help="The window of openai:NAME in tokens.", min=512)] = None,
    workers: Annotated[
        str, typer.Option(help="ray, ray:N or ray:N:ADDRESS: samples over a Ray cluster, N models at once.")
    ] = "",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Logs and report; the same folder again goes on where it was.")
    ] = Path("longspan-eval"),
) -> None:
    """Measure what answers: tasks at several lengths, with quality, speed, memory and cost, and a report."""
    with _extra("Measuring", "eval"):
        from longspan.evaluation.command import describe, evaluate
    if not tasks:
        describe()
        return
    named = {"lengths": lengths, "samples": samples, "seed": seed}
    evaluate(
        tasks,
        on or ["smollm2"],
        out,
        named={name: value for name, value in named.items() if value is not None},
        pairs=arguments or [],
        base_url=base_url,
        window=window,
        workers=workers,
        limit=limit,
        time_limit=time_limit,
    )


@app.command()
def effective(
    model: Annotated[
        str, typer.Argument(metavar="SPEC", help="[WORKFLOW@]MODEL[+METHOD...]: what answers.")
    ] = "smollm2",
    task: Annotated[str, typer.Option(help="The task that measures; `longspan eval` lists them.")] = "niah",
    threshold: Annotated[
        str, typer.Option(help="ruler (0.856), relative (0.85 of the score at the shortest length), or a score.")
    ] = "ruler",
    shortest: Annotated[str, typer.Option(help="Where the search begins, in tokens.")] = "512",
    longest: Annotated[str | None, typer.Option(help="Where it ends.", show_default="the model's window")] = None,
    confidence: Annotated[float, typer.Option(help="Of the whole search.", min=0.5, max=0.999)] = 0.95,
    seed: Annotated[int, typer.Option(help="Another seed gives other samples.")] = 0,
    base_url: Annotated[str | None, typer.Option(help="The endpoint's URL, for openai:NAME.")] = None,
    window: Annotated[int | None, typer.Option(help="The window of openai:NAME in tokens.", min=512)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Logs; the same folder again goes on where it was.")] = Path(
        "longspan-eval"
    ),
) -> None:
    """Find the largest length at which a model still answers well, to a stated confidence."""
    from dataclasses import asdict

    with _extra("Measuring", "eval"):
        from longspan.evaluation import command
        from longspan.evaluation.effective import Probe
        from longspan.evaluation.lengths import parse_lengths

    screen = _Screen(quiet=False, as_json=False)

    def tell(probe: Probe) -> None:
        says = "passes" if probe.passed else "fails"
        doubt = "" if probe.certain else " (not certain)"
        screen.tell(f"{probe.length:>8} tokens: {probe.mean:6.1%} of {probe.samples} samples: {says}{doubt}")

    (low,) = parse_lengths(shortest)
    high = parse_lengths(longest)[-1] if longest is not None else None
    found, claimed = command.effective(
        model,
        task,
        out,
        threshold=threshold,
        shortest=low,
        longest=high,
        confidence=confidence,
        seed=seed,
        base_url=base_url,
        window=window,
        tell=tell,
    )
    if as_json:
        result = {**asdict(found), "certain": found.certain, "model": model, "task": task, "window": claimed}
        typer.echo(json.dumps(result))
        return
    fails = f"; it fails at {found.fails_at}" if found.fails_at else ""
    claim = f" of the {claimed} that it claims" if claimed else ""
    sure = f"at {found.confidence:.0%} confidence" if found.certain else "by the means, not certain"
    typer.echo(
        f"{model}: effective context {found.length} tokens{claim}{fails} "
        f"({task}, score above {found.threshold:.3f}, {sure})"
    )


@contextmanager
def _extra(feature: str, name: str) -> Iterator[None]:
    """What an extra brings is imported here; where it is missing, the command that adds it is said."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "longspan":
            raise
        raise MissingExtra(feature, name) from error


REPRODUCE_EPILOG = """
Exit codes: 0 where the claim holds or the data do not decide (inconclusive), 3 where it does not hold at this scale,
1 where a seed failed. Finished seeds are kept: run again to go on.

Examples:

  longspan reproduce m4le --quick

  longspan reproduce --all --quick --out build/results
"""


@app.command(epilog=REPRODUCE_EPILOG)
def reproduce(
    slug: Annotated[
        str | None,
        typer.Argument(metavar="SLUG", help="A system, as `longspan systems` names it.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small variant of under a minute, stored apart.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(help="How many seeds to measure.", min=1, show_default="1 if quick, else its own number"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where JSON and plot go.", show_default="docs/results, or the cache")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure finished seeds anew.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Reproduce every system that can be.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List what can be reproduced.")] = False,
) -> None:
    """Try a published claim again, at the size of this machine, and say whether it holds."""
    from longspan.reproductions import harness

    if (slug is not None) + everything + listed != 1:
        raise UsageError("Say what to reproduce: longspan reproduce SLUG, --all, or --list to see what there is.")
    if listed:
        harness.show_list()
        return
    screen = _Screen(quiet=False, as_json=False)
    if slug is not None:
        result = harness.run(slug, seeds, quick, out, fresh=fresh, tell=screen.tell)
        harness.show(result)
        if said := harness.problem(result):
            _say(said)
        raise typer.Exit(result.exit_code)
    rows: list[tuple[str, harness.Result | LongspanError]] = []
    for each in harness.everything():
        try:
            rows.append((each.slug, harness.run(each.slug, seeds, quick, out, fresh=fresh, tell=screen.tell)))
        except LongspanError as error:  # the others may still work
            rows.append((each.slug, error))
    harness.show_all(rows)
    codes = {1 if isinstance(row, LongspanError) else row.exit_code for _, row in rows}
    raise typer.Exit(1 if 1 in codes else max(codes, default=0))


@app.command()
def bench(
    model: Annotated[
        str, typer.Argument(help="smollm2, hub id, folder, file.gguf; with +int8 or +int4 on such weights.")
    ] = "smollm2",
    lengths: Annotated[str, typer.Option(help="Tokens in the window, as 1k,8k.")] = "1k,8k",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How fast a model reads and writes here, and what share that is of what this machine could do (its roofline)."""
    from dataclasses import asdict

    from longspan.engine.roofline import roofline
    from longspan.llm import open_local
    from longspan.terminal import show_roofline

    wanted = [_tokens(part) for part in lengths.split(",")]
    machine, lines = roofline(open_local(model).engine, wanted)
    if as_json:
        typer.echo(json.dumps({"machine": asdict(machine), "lines": [asdict(line) for line in lines]}, indent=1))
        return
    rates = (
        f"{model} on this machine: {machine.products / 1e9:.0f} G operations of products a second, "
        f"{machine.exponentials / 1e9:.1f} G exponentials, {machine.bytes / 1e9:.1f} GB read"
    )
    show_roofline(rates, [(line.what, line.tokens, line.bound, line.measured) for line in lines])


def _tokens(text: str) -> int:
    """A length as 8k or 8192. Raises UsageError for anything else."""
    number = text.strip().lower()
    scale = 1024 if number.endswith("k") else 1
    if not number.removesuffix("k").isdigit() or int(number.removesuffix("k")) < 1:
        raise UsageError(f"{text!r} is no length: write tokens, as 8192 or 8k.")
    return scale * int(number.removesuffix("k"))


@app.command("systems")
def systems_command(
    query: Annotated[
        list[str] | None, typer.Argument(help="Words that name, title, problem or idea must all hold.", metavar="QUERY")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Only of this plug-in point: cache, attention, workflows ...")] = None,
    status: Annotated[
        str | None, typer.Option(help="planned, part, measured, holds, does-not-hold or inconclusive.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page to FILE.")] = None,
) -> None:
    """The published systems for long context, and how far each works here."""
    from longspan import catalogue

    found = catalogue.search(catalogue.entries(), " ".join(query or []), at, status)
    if html is not None:
        catalogue.write_page(found, html)
        typer.echo(f"{len(found)} systems in {html}", err=True)
    if as_json:
        typer.echo(json.dumps([entry.to_dict() for entry in found], indent=1))
    elif html is None:
        catalogue.show(found)


INTERRUPTED = 128 + signal.SIGINT
GRACE = 2.0  # seconds that an interrupted run has to end by itself


def main() -> NoReturn:
    """Run the command line; problems are one sentence on stderr and a non-zero exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    gc.set_threshold(20_000, 50)  # what torch and transformers make when imported stays: collecting took 0.9 of 5.5 s
    told = threading.Event()
    others = set(threading.enumerate())  # of a program that calls this

    def tell() -> None:
        if not told.is_set():
            told.set()
            _say("Interrupted; what was finished is kept.")

    def leave(*_: object) -> None:
        tell()
        os._exit(INTERRUPTED)

    def interrupted(*_: object) -> None:
        # Threads inside other libraries (loading, indexing) cannot be interrupted, and the interpreter would wait for
        # them; on disk everything appears whole or not at all, so they may be left. A second Ctrl-C leaves at once.
        signal.signal(signal.SIGINT, leave)
        timer = threading.Timer(GRACE, leave)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        code = app(standalone_mode=False) or 0  # typer turns a Ctrl-C into the code 130
        if code == INTERRUPTED:
            tell()
    except LongspanError as error:
        _say(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        tell()
        code = INTERRUPTED
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer"):
            what = str(error.format_message() if hasattr(error, "format_message") else error)
            _say(f"{what.rstrip('.')}. Try --help.")
            code = 2
        elif os.environ.get("LONGSPAN_DEBUG"):
            raise
        elif isinstance(error, MemoryError):
            _say("There is not enough memory for this: free some, or ask about a smaller part of the text.")
            code = 1
        elif isinstance(error, OSError) and error.errno == 28:
            _say(f"The disk is full ({error.filename or 'cache'}): free some space or set LONGSPAN_CACHE elsewhere.")
            code = 1
        else:
            _say(
                f"Unexpected {type(error).__name__}: {error}. Set LONGSPAN_DEBUG=1 to see where, and please report it."
            )
            code = 70
    signal.signal(signal.SIGINT, before)
    sys.stdout.flush()
    if code and _engine_runs(others):
        sys.stderr.flush()
        os._exit(code)  # a wrong path should not have to wait until the model is loaded, only to be told
    gc.freeze()  # else the interpreter walks through the whole model once more: 0.6 s
    sys.exit(code)


def _engine_runs(others: set[threading.Thread]) -> bool:
    """Whether a model is loading or at work in a thread of this command, for which the interpreter would wait. As after
    a Ctrl-C it may be left: on disk everything appears whole or not at all."""
    return any(thread.name.startswith("longspan-engine") for thread in set(threading.enumerate()) - others)


def _say(message: str) -> None:
    typer.echo(f"\nlongspan: {message}" if sys.stderr.isatty() else f"longspan: {message}", err=True)


if __name__ == "__main__":
    main()

"""The story tasks of The Sparse Frontier (arXiv:2504.17768): a long narrative in natural language, made by rule.

A traveller passes from chapter to chapter; in each she comes to a town, meets one person, buys something and now and
then sells something bought before. Three tasks ask what a reader of the whole would know: *retrieval* (facts of named
chapters), *filtering* (the chapters in which nothing is bought) and *multi-hop* (what was bought last before a given
thing). Every thing is unique, and no two chapters share both town and person.

From the paper are the parts of a chapter and their order, one purchase a chapter, a sale in every second, 16 questions
of retrieval, 3 chapters of filtering, the question before and after the text, an explanation followed by the answer in
`<answer>`, and the metrics. The sentences are our own. What differs:

- chapters fill the length to its end: what a whole chapter would overrun is filled with sentences of talk;
- a thing whose purchase filtering removes is not sold later either (there it is sold without having been bought);
- where the text has too few chapters, fewer are asked for (there it is an error), at least one;
- an empty answer scores 0 (there, in filtering and multi-hop, it is left out of the mean);
- the room for the answer is a part of the length, and smaller: 256 tokens where the paper leaves 1 024 beside it.

The paper's other tasks (question answering, variable tracking, common words, needles) are RULER's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS
from longspan.registry import register

HERO = "Ilse"
QUERIES = 16
SILENT = 3  # chapters of filtering without a purchase
TALK_SENTENCES = 3
SALE_CHANCE = 0.5
ANSWER_TOKENS = 256

BEFORE = (
    "Below is a story in chapters. In each of them {hero} comes to one town and meets one person; she may buy "
    "something there, and sell something. Everything that she buys exists only once.\n\n{question}\n\n"
    "The question is put again after the story.\n\n<story>\n"
)
AFTER = "\n</story>\n\n{question}\n\n{form}"
FORM = (
    "Reply in this form:\n"
    "<explanation>\nin one or two sentences, where the story tells it\n</explanation>\n"
    "<answer>\n{answer}\n</answer>\n"
    "{note} Nothing else belongs between the answer's tags."
)
RETRIEVAL_FORM = FORM.format(
    answer="1. first answer\n2. second answer\n(and so on)",
    note="Give each answer its number and a line of its own, in the story's own words without 'a' or 'the'.",
)
FILTERING_FORM = FORM.format(
    answer="number, number, ...", note="Give the chapters' numbers alone, with commas between."
)
MULTIHOP_FORM = FORM.format(answer="thing", note="Name the thing in the story's own words without 'a' or 'the'.")

QUESTIONS = {
    "place": "{number}. To which town did {hero} come in chapter {chapter}?",
    "person": "{number}. Whom did {hero} meet in chapter {chapter}?",
    "item": "{number}. Which thing did {hero} buy in chapter {chapter}?",
}
EVIDENCE = {"place": "arrival", "person": "meeting", "item": "purchase"}  # the part of a chapter that tells it


@register("task", "story-retrieval", systems=("sparse-frontier",))
@task(name="story_retrieval")
def story_retrieval(
    lengths: str | int = "4k,8k,16k",
    samples: int = 4,
    queries: int = QUERIES,
    answer_tokens: int = ANSWER_TOKENS,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """Towns, people and purchases of chapters named in `queries` questions on one long story, asked all at once."""
    if queries < 1:
        raise UsageError(f"queries={queries}: there must be at least one question.")

    def one(rng: Random, length: int, count: TokenCounter, id: str) -> Sample:
        return retrieval_sample(rng, length, count, id, queries, answer_tokens)

    return _task("story-retrieval", one, numbered_answers(), lengths, samples, answer_tokens, seed, tokenizer)


@register("task", "story-filtering", systems=("sparse-frontier",))
@task(name="story_filtering")
def story_filtering(
    lengths: str | int = "4k,8k,16k",
    samples: int = 4,
    silent: int = SILENT,
    answer_tokens: int = ANSWER_TOKENS,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """The `silent` chapters of a long story in which nothing is bought; their number is told."""
    if silent < 1:
        raise UsageError(f"silent={silent}: at least one chapter must be without a purchase.")

    def one(rng: Random, length: int, count: TokenCounter, id: str) -> Sample:
        return filtering_sample(rng, length, count, id, silent, answer_tokens)

    return _task("story-filtering", one, chapter_overlap(), lengths, samples, answer_tokens, seed, tokenizer)


@register("task", "story-multihop", systems=("sparse-frontier",))
@task(name="story_multihop")
def story_multihop(
    lengths: str | int = "4k,8k,16k",
    samples: int = 4,
    answer_tokens: int = ANSWER_TOKENS,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """What was bought last before a given thing in a long story: find its chapter, then the purchase before."""

    def one(rng: Random, length: int, count: TokenCounter, id: str) -> Sample:
        return multihop_sample(rng, length, count, id, answer_tokens)

    return _task("story-multihop", one, exact_thing(), lengths, samples, answer_tokens, seed, tokenizer)


def _task(
    name: str,
    one: Callable[[Random, int, TokenCounter, str], Sample],
    score: Scorer,
    lengths: str | int,
    samples: int,
    answer_tokens: int,
    seed: int,
    tokenizer: str | None,
) -> Task:
    count = counter(tokenizer)
    ids = [
        (length, f"{name}-{length}-{seed}-{number}") for length in parse_lengths(lengths) for number in range(samples)
    ]
    return Task(
        dataset=MemoryDataset([one(Random(id), length, count, id) for length, id in ids], name=name),
        scorer=score,
        config=GenerateConfig(max_tokens=answer_tokens, temperature=0.0),
    )


# Samples


def retrieval_sample(
    rng: Random, length: int, counter: TokenCounter, id: str, queries: int, answer_tokens: int
) -> Sample:
    """`queries` different chapters are drawn, and of each its town, person or purchase; of three, one of each kind."""

    budget = room(length, counter, answer_tokens)

    @cache
    def free(asked: int) -> int:
        widest = [QUESTIONS["item"].format(number=number, hero=HERO, chapter=1000) for number in range(asked)]
        return _free(budget, counter, "\n".join(widest), RETRIEVAL_FORM)

    story = tell(rng, counter, lambda chapters: free(min(queries, chapters)), least=1)
    asked = rng.sample(story, min(queries, len(story)))
    kinds = [rng.choice(list(QUESTIONS)) for _ in asked]
    if len(asked) == 3:
        kinds = list(QUESTIONS)
        rng.shuffle(kinds)
    question = "\n".join(
        QUESTIONS[kind].format(number=number, hero=HERO, chapter=chapter.number)
        for number, (kind, chapter) in enumerate(zip(kinds, asked, strict=True), 1)
    )
    context, tokens = fill_up(rng, story, counter, budget, question, RETRIEVAL_FORM)
    return make_sample(
        id,
        **_prompt(context, question, RETRIEVAL_FORM),
        targets=[getattr(chapter, kind) for kind, chapter in zip(kinds, asked, strict=True)],
        length=length,
        counter=counter,
        answer_tokens=answer_tokens,
        tokens=tokens,
        needles=[chapter.parts[EVIDENCE[kind]][0] for kind, chapter in zip(kinds, asked, strict=True)],
        chapters=len(story),
        queries=len(asked),
    )


def filtering_sample(
    rng: Random, length: int, counter: TokenCounter, id: str, silent: int, answer_tokens: int
) -> Sample:
    """`silent` chapters are drawn and lose their purchase; at most half of a short story. The needles are these."""

    def asks(number: int) -> str:
        if number == 1:
            return f"In which chapter does {HERO} buy nothing? There is exactly one."
        return f"In which chapters does {HERO} buy nothing? There are exactly {number}."

    budget = room(length, counter, answer_tokens)
    free = _free(budget, counter, asks(silent), FILTERING_FORM)
    story = tell(rng, counter, lambda _: free, least=2)
    drawn = sorted(rng.sample(range(len(story)), min(silent, len(story) // 2)))
    gone = {story[at].item for at in drawn}
    for at in drawn:
        story[at].item, story[at].parts["purchase"] = "", []
    for chapter in story:
        if chapter.sold in gone:
            chapter.sold, chapter.parts["sale"] = "", []
    question = asks(len(drawn))
    context, tokens = fill_up(rng, story, counter, budget, question, FILTERING_FORM)
    return make_sample(
        id,
        **_prompt(context, question, FILTERING_FORM),
        targets=[str(story[at].number) for at in drawn],
        length=length,
        counter=counter,
        answer_tokens=answer_tokens,
        tokens=tokens,
        needles=[story[at].text() for at in drawn],
        chapters=len(story),
        silent=len(drawn),
    )


def multihop_sample(rng: Random, length: int, counter: TokenCounter, id: str, answer_tokens: int) -> Sample:
    """A purchase other than the first is named, the one before it wanted. `depth` is the wanted one's chapter."""

    def asks(item: str) -> str:
        return f"Which thing did {HERO} buy last before she bought the {item}?"

    budget = room(length, counter, answer_tokens)
    widest = asks(" ".join(max(words, key=counter.count) for words in ITEM_WORDS))
    free = _free(budget, counter, widest, MULTIHOP_FORM)
    story = tell(rng, counter, lambda _: free, least=2)
    at = rng.randrange(1, len(story))
    wanted, named = story[at - 1], story[at]
    question = asks(named.item)
    context, tokens = fill_up(rng, story, counter, budget, question, MULTIHOP_FORM)
    return make_sample(
        id,
        **_prompt(context, question, MULTIHOP_FORM),
        targets=[wanted.item],
        length=length,
        counter=counter,
        answer_tokens=answer_tokens,
        tokens=tokens,
        depth=(at - 1) / max(len(story) - 1, 1),
        needles=[chapter.parts["purchase"][0] for chapter in (wanted, named)],
        chapters=len(story),
    )


# The story


@dataclass(slots=True)
class Chapter:
    """One chapter: its facts, and its sentences by PARTS. `item` and `sold` are "" where nothing is bought, or sold."""

    number: int
    place: str
    person: str
    item: str
    sold: str
    event: str
    parts: dict[str, list[str]] = field(default_factory=dict)

    def text(self) -> str:
        return f"Chapter {self.number}\n" + " ".join(sentence for part in PARTS for sentence in self.parts[part])

    def say(self, template: str) -> str:
        """A sentence of TEMPLATES about this chapter."""
        return template.format(
            hero=HERO, place=self.place, person=self.person, item=self.item, sold=self.sold, event=self.event
        )


def chapters(rng: Random) -> Iterator[Chapter]:
    """Chapter after chapter, until towns and people, or things to buy, have all been used."""
    seen: set[tuple[str, ...]] = set()
    owned: list[str] = []

    def new(*lists: Sequence[str]) -> tuple[str, ...]:
        for _ in range(1000):
            drawn = tuple(rng.choice(words) for words in lists)
            if drawn not in seen:
                seen.add(drawn)
                return drawn
        raise UsageError(
            f"The story ends after {number - 1} chapters, as it never repeats itself: take a lower length."
        )

    number = 1
    while True:
        place, person = new(PLACES, PEOPLE)
        item = " ".join(new(*ITEM_WORDS))
        sold = owned.pop(rng.randrange(len(owned))) if owned and rng.random() < SALE_CHANCE else ""
        owned.append(item)
        chapter = Chapter(number, place, person, item, sold, rng.choice(EVENTS))
        for part in PARTS:
            wanted = TALK_SENTENCES if part == "talk" else 0 if part == "sale" and not sold else 1
            chapter.parts[part] = [chapter.say(template) for template in rng.sample(TEMPLATES[part], wanted)]
        yield chapter
        number += 1


def tell(rng: Random, counter: TokenCounter, free: Callable[[int], int], least: int) -> list[Chapter]:
    """As many chapters as fit: `free(n)` tokens are there for n of them. Raises UsageError under `least`."""
    story: list[Chapter] = []
    used = 0
    for chapter in chapters(rng):
        used += counter.count(f"\n\n{chapter.text()}")
        if used > free(chapter.number):
            break
        story.append(chapter)
    if len(story) < least:
        raise UsageError(
            f"The length is too short for a story: {used - free(least)} tokens more are needed for "
            f"{least} chapter{'s' * (least > 1)}. Take a greater length, or fewer answer_tokens."
        )
    return story


def fill_up(
    rng: Random, story: list[Chapter], counter: TokenCounter, budget: int, question: str, form: str
) -> tuple[str, int]:
    """The story's text with sentences added until the prompt has `budget` tokens, or a few less, and its tokens."""

    def measure() -> tuple[str, int]:
        context = "\n\n".join(chapter.text() for chapter in story)
        return context, counter.count("".join(map(str, _wrapped(context, question, form))))

    context, tokens = measure()
    missing = budget - tokens
    added: list[list[str]] = []
    for part, templates in (("talk", TEMPLATES["talk"]), ("mood", SHORT)):
        full: set[int] = set()  # chapters that have every sentence that would fit
        while len(full) < min(len(story), 4):
            chapter = rng.choice(story)
            options = [chapter.say(template) for template in templates]
            rng.shuffle(options)
            for sentence in options:
                cost = counter.count(f" {sentence}")
                if cost <= missing and sentence not in chapter.parts[part]:
                    chapter.parts[part].append(sentence)
                    added.append(chapter.parts[part])
                    missing -= cost
                    break
            else:
                full.add(chapter.number)
    if added:
        context, tokens = measure()
    while tokens > budget:  # where tokens reach over the ends of sentences
        longest = added.pop() if added else max((chapter.parts["talk"] for chapter in story), key=len)
        longest.pop()
        context, tokens = measure()
    return context, tokens


def _free(budget: int, counter: TokenCounter, question: str, form: str) -> int:
    return budget - counter.count("".join(_wrapped("", question, form)))


def _wrapped(context: str, question: str, form: str) -> tuple[str, str, str]:
    return BEFORE.format(hero=HERO, question=question), context, AFTER.format(question=question, form=form)


def _prompt(context: str, question: str, form: str) -> dict[str, Any]:
    before, context, after = _wrapped(context, question, form)
    return {"before": before, "context": context, "after": after, "question": f"{question}\n\n{form}"}


# Scorers: the official ones' reading of an answer


def plain(text: str) -> str:
    """In lower case, with single spaces, without an article in front."""
    return re.sub(r"^(?:the|an?)\s+", "", re.sub(r"\s+", " ", text.lower().strip()))


def tagged(text: str) -> str | None:
    """What stands in the first pair of answer tags."""
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE)
    return found.group(1) if found else None


def numbered(text: str) -> dict[int, str]:
    """Answers by number, from lines such as `1. gilded lamp`; without tags the whole text is read; the first counts."""
    inside = tagged(text)
    answers: dict[int, str] = {}
    for line in (text if inside is None else inside).split("\n"):
        if found := re.match(r"(\d+)[.:)]\s*(\S.*)", line.strip()):
            answers.setdefault(int(found.group(1)), plain(found.group(2)))
    return answers


def chapter_numbers(text: str) -> set[int]:
    """The chapters named between answer tags: those called `Chapter 7` if there are any, else all numbers.

    Numbers are read as the official code reads them: what is no digit, comma or white space is struck out first, so
    that `3-5` is 35.
    """
    inside = tagged(text) or ""
    called = re.findall(r"chapter\s+(\d+)", inside, re.IGNORECASE)
    return {int(number) for number in called or re.sub(r"[^0-9,\s]", "", inside).replace(",", " ").split()}


def retrieval_score(answer: str, wanted: Sequence[str]) -> float:
    """The share of the wanted that stand under their own number, word for word but for case and article."""
    given = numbered(answer)
    return sum(given.get(number) == plain(text) for number, text in enumerate(wanted, 1)) / len(wanted)


def filtering_score(answer: str, wanted: Sequence[str]) -> float:
    """Intersection over union of the chapters named and the chapters wanted."""
    given, gold = chapter_numbers(answer), {int(number) for number in wanted}
    return len(given & gold) / len(given | gold)


def multihop_score(answer: str, wanted: Sequence[str]) -> float:
    """1 if what stands between answer tags is the thing wanted, but for case, spaces and article."""
    return float(plain(tagged(answer) or "") == plain(wanted[0]))


@scorer(metrics=METRICS)
def numbered_answers() -> Scorer:
    """The share of numbered answers that are exactly right."""
    return _scoring(retrieval_score)


@scorer(metrics=METRICS)
def chapter_overlap() -> Scorer:
    """Intersection over union of the chapters named and wanted."""
    return _scoring(filtering_score)


@scorer(metrics=METRICS)
def exact_thing() -> Scorer:
    """1 if the answer between the tags is exactly the thing wanted."""
    return _scoring(multihop_score)


def _scoring(value: Callable[[str, Sequence[str]], float]) -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        return Score(value=value(answer, list(target)), answer=tagged(answer) or answer)

    return score


# What the story is made of. No name or thing occurs in a sentence, or in another name.

# fmt: off
PLACES = (
    "Aalborg", "Aberdeen", "Antwerp", "Arhus", "Avignon", "Basel", "Bergen", "Bilbao", "Bordeaux", "Bremen", "Brest",
    "Bristol", "Bruges", "Cadiz", "Calais", "Cologne", "Cork", "Danzig", "Dieppe", "Dublin", "Dundee", "Emden",
    "Falmouth", "Gdynia", "Genoa", "Ghent", "Gijon", "Gothenburg", "Groningen", "Haarlem", "Hamburg", "Helsinki",
    "Hoorn", "Hull", "Inverness", "Kalmar", "Kampen", "Karlskrona", "Kaunas", "Kiel", "Klaipeda", "Leiden", "Limerick",
    "Lisbon", "Liverpool", "Lubeck", "Malmo", "Marseille", "Leith", "Middelburg", "Nantes", "Narva", "Norwich",
    "Odense", "Oslo", "Ostend", "Plymouth", "Porto", "Portsmouth", "Ravenna", "Riga", "Rostock", "Rotterdam", "Rouen",
    "Santander", "Seville", "Stavanger", "Stettin", "Stockholm", "Stralsund", "Tallinn", "Toulon", "Trieste",
    "Tromso", "Trondheim", "Turku", "Utrecht", "Venice", "Vigo", "Visby", "Wismar", "Yarmouth", "Ystad", "Zwolle",
)
PEOPLE = (
    "Abigail", "Agnes", "Aksel", "Albrecht", "Ambrose", "Anselm", "Arvid", "Barbara", "Beatrix", "Benedikt", "Birgit",
    "Bruno", "Cecilia", "Christoph", "Clemens", "Cornelius", "Dagmar", "Dietrich", "Dorothea", "Edmund", "Eleanor",
    "Esther", "Eugenia", "Ferdinand", "Florian", "Frieda", "Gerhard", "Gisela", "Gottfried", "Gudrun", "Gunnar",
    "Hedwig", "Henrik", "Hildegard", "Hubert", "Ingrid", "Isidor", "Jasper", "Judith", "Katharina", "Konrad",
    "Lambert", "Lorenz", "Ludmila", "Magnus", "Margarete", "Matilda", "Mechthild", "Nikolaus", "Olaf", "Ottilie",
    "Philippa", "Quirin", "Rasmus", "Reinhild", "Roland", "Sigrid", "Theodor", "Ulrike", "Valentin", "Veronika",
    "Walburga", "Wilhelm", "Yvonne",
)
ITEM_WORDS = (
    ("battered", "carved", "chipped", "crooked", "curious", "dented", "faded", "flawless", "hollow", "lacquered",
     "mended", "oversized", "painted", "patched", "plain", "scorched", "scratched", "slender", "spotless", "twisted"),
    ("agate", "alabaster", "beech", "birch", "brass", "cedar", "coral", "ebony", "enamel", "garnet", "iron", "leather",
     "maple", "nickel", "onyx", "oak", "pearl", "pewter", "quartz", "slate", "steel", "tin", "walnut", "willow"),
    ("abacus", "barometer", "bugle", "caddy", "casket", "compass", "cornet", "decanter", "flute", "globe", "goblet",
     "hourglass", "inkwell", "kettle", "lantern", "lute", "mortar", "padlock", "quill", "rosette", "sextant",
     "snuffbox", "spyglass", "sundial", "tankard", "thimble", "trivet", "whistle"),
)
# fmt: on
EVENTS = (
    "a fire at the rope works",
    "the launch of a ship",
    "a quarrel in the town council",
    "the yearly horse fair",
    "a flood in the lower streets",
    "the funeral of a judge",
    "a strike of the dock hands",
    "the arrival of a travelling theatre",
    "a shortage of bread",
    "the wedding of two rival houses",
    "a rumour of war",
    "the escape of a prisoner",
    "a parade of the guilds",
    "the closing of the mint",
    "a rise in the price of salt",
    "the visit of a bishop",
    "an outbreak of fever",
    "the return of a lost crew",
    "a theft in the cathedral",
    "the opening of a new bridge",
)
SHORT = ("It rained.", "Night fell.", "Bells rang.", "A dog barked somewhere.", "The wind had turned.", "Gulls cried.")
PARTS = ("arrival", "reason", "event", "meeting", "talk", "purchase", "sale", "farewell", "departure", "mood")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "arrival": (
        "The mail coach put {hero} down in {place} before the shops had opened.",
        "It was raining when {hero} walked through the north gate of {place}.",
        "{hero} saw the roofs of {place} from the hill and reached them by noon.",
        "A barge brought {hero} up the canal to {place}.",
        "After two days on foot {hero} came to {place} and was glad of a bed.",
        "{place} was smaller than {hero} had been told, and a good deal louder.",
        "The ferry was late, and lamps were lit in {place} when {hero} stepped ashore.",
        "{hero} had not planned to stop in {place}, but the road went no further that day.",
        "With the morning train {hero} arrived in {place}, her case tied up with string.",
        "Snow lay on the quays of {place} when {hero} got there.",
    ),
    "reason": (
        "She had a letter to deliver and no great hurry to do so.",
        "A cousin had once praised the market here, and {hero} wished to see it.",
        "She meant to stay one night and to spend as little as she could.",
        "For weeks she had wanted to be where nobody knew her name.",
        "An old account had to be settled, or so {hero} told the innkeeper.",
        "She hoped for news of her brother, who had passed this way in spring.",
        "Her shoes needed soles, and the cobblers here had a good name.",
        "{hero} was writing down the songs of the coast and lacked a verse.",
        "There was a doctor in town who, people said, could cure a cough.",
        "A map in her pocket marked the place with a cross and nothing more.",
    ),
    "event": (
        "That week everyone spoke of {event}.",
        "Because of {event} half of the houses had their shutters closed.",
        "She had come at a bad time: {event} kept people from their work.",
        "In the square a crowd had gathered, drawn by {event}.",
        "Nobody asked what she wanted, for {event} filled every head.",
        "The innkeeper blamed the bad soup on {event}.",
        "Two boys ran past, shouting about {event}.",
        "Of {event} the newspaper said only that it could have been worse.",
        "The tower clock had been stopped on account of {event}.",
        "One could not cross the street without hearing of {event}.",
    ),
    "meeting": (
        "On a bench by the water sat {person}, who nodded to {hero} as to an old friend.",
        "At the inn she was given a place at the table of {person}.",
        "{person} held the door for her and then would not stop talking.",
        "A sign over a stairway promised honest dealing, and upstairs {hero} found {person}.",
        "She took shelter under an arch, where {person} was waiting for the rain to end.",
        "It was {person} who picked up the glove that {hero} had dropped.",
        "Someone called out to her from a window; it was {person}, as she learned.",
        "Behind a stall heaped with odds and ends stood {person}, counting coins.",
        "{hero} asked her way of the first person she saw, and that was {person}.",
        "A porter led her through two courtyards to {person}, who was mending a chair.",
    ),
    "talk": (
        "They spoke of the weather first, as strangers do.",
        "It turned out that both had once missed the same boat.",
        "There was much to be said about taxes, and all of it was said.",
        "They agreed that the young were impatient and the old were worse.",
        "For a while they listened to a fiddle that someone was playing badly next door.",
        "A story followed about a miller, a goat and a borrowed coat, too long to be told again.",
        "Neither of them thought highly of the new mayor.",
        "In {place}, it seemed, debts were remembered longer than birthdays.",
        "They drank something hot that tasted of cloves.",
        "The talk came round to dreams, and to what one eats before sleeping.",
        "Twice they were interrupted by a child who wanted to know the time.",
        "They compared the harvests of three years and found each had been the worst.",
        "It was said that the river under {place} had a second bed which nobody had seen.",
        "Each had an uncle who had gone overseas and never written.",
        "They tried to recall the words of a hymn and got as far as the second line.",
        "A wager was offered on which of two snails would reach the wall, and declined.",
        "They spoke more softly when a constable walked by.",
        "The best cheese, they agreed, came from villages that had no road.",
        "Some time was lost over a riddle to which both had forgotten the solution.",
        "They wondered who had built the old wall of {place}, and against whom.",
        "It was hard to say which of them was the more tired.",
        "They passed a newspaper back and forth and disbelieved most of it.",
        "Of the war neither wished to speak, so they spoke of bees.",
        "There was laughter when a hat blew past and no one came after it.",
        "They argued politely about how far it was to the sea.",
        "Somebody had carved initials into the table, and they guessed at the names.",
        "Rents in {place} had doubled, which explained the many empty windows.",
        "They shared a pear, cut with great fairness into two.",
        "A long silence followed which was not unpleasant.",
        "In the end they talked of home, each meaning a different kind of place.",
    ),
    "purchase": (
        "Before long {hero} had paid {person} for the {item} and wrapped it in her scarf.",
        "She liked the {item} that {person} showed her, and bought it.",
        "{person} wanted too much for the {item}; they settled on half, and {hero} carried it off.",
        "For nine silver coins the {item} passed from {person} to {hero}.",
        "{hero} purchased the {item} from {person} without asking where it came from.",
        "The {item} became hers once {person} had counted the money a second time.",
        "{hero} handed over the last of her notes, and {person} gave her the {item}.",
        "She had not meant to spend anything, yet she left {person} poorer by the price of the {item}.",
        "From {person} she acquired the {item}, for cash and a promise to write.",
    ),
    "sale": (
        "In turn {hero} sold {person} the {sold}.",
        "The {sold} she let {person} have, at a small profit.",
        "{person} offered a fair price for the {sold}, and {hero} parted with it.",
        "She was rid of the {sold} at last: {person} took it and paid on the spot.",
        "{hero} got good money from {person} for the {sold}.",
    ),
    "farewell": (
        "They shook hands, and {person} went back to work.",
        "{person} waved once and did not look round again.",
        "She thanked {person} and gathered up her things.",
        "{hero} took her leave of {person} under the clock.",
        "They parted at the corner, {person} to the left and {hero} to the right.",
        "{person} wished her dry roads.",
        "With a bow that was only half a joke {person} let her go.",
        "{hero} promised {person} to come again, and both knew that she would not.",
        "At the church door {person} said goodbye.",
        "There was nothing more to say, and {person} said so.",
    ),
    "departure": (
        "That night {hero} packed, and at dawn {place} lay behind her.",
        "She left {place} by the same road, which looked different in this direction.",
        "By evening the towers of {place} were out of sight.",
        "{hero} slept badly and was gone before breakfast.",
        "The next coach had one free seat, and {hero} took it.",
        "She walked along the dyke until {place} was only a smudge.",
        "A carter let her ride on his sacks as far as the crossroads.",
        "{hero} wrote two lines in her diary and put out the lamp.",
        "When the tide turned she was aboard.",
        "She counted what was left in her purse and went on.",
    ),
    "mood": (
        "A thin moon stood over the fields.",
        "Somewhere a gate banged in the wind.",
        "Smoke rose straight from the chimneys.",
        "The hedges were full of sparrows.",
        "Far off a train whined and was gone.",
        "The puddles had begun to freeze.",
        "It smelled of tar and cut grass.",
        "Nobody was about but a cat.",
        "The milestones had lost their numbers.",
        "Rain drummed on the canvas.",
    ),
}

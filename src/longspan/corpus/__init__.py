"""Documents as exact text, cut into passages and sentences."""

from longspan.corpus.corpus import Corpus, Entry, Skipped
from longspan.corpus.document import Document, Passage
from longspan.corpus.passages import passages
from longspan.corpus.sentences import Sentence, sentences

__all__ = ["Corpus", "Document", "Entry", "Passage", "Sentence", "Skipped", "passages", "sentences"]

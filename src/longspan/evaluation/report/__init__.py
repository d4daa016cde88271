"""What came of an evaluation: a table in the terminal, Parquet and JSON, and one page to read."""

from longspan.evaluation.report.page import write_html
from longspan.evaluation.report.store import load, save
from longspan.evaluation.report.summary import summarise
from longspan.evaluation.report.terminal import print_table

__all__ = ["load", "print_table", "save", "summarise", "write_html"]

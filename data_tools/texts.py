"""Captions on their way into a shard: cleaned of what no reader should see, and left out where rules say so.

The rules know no language: they count words, signs, letters and repetitions.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from data_tools.left_out import Unusable

# Signs that turn the direction of text and so can hide what it says; marks without width that only break words.
HIDDEN_SIGNS = set("\u200b\u200e\u200f\u2060\ufeff\ufff9\ufffa\ufffb") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
LINK = re.compile(r"https?://|www\.|\S+@\S+\.\w", re.IGNORECASE)
FILE_NAME = re.compile(r"^\S+\.(jpe?g|png|gif|webp|bmp|tiff?|svg|pdf|html?|php)$", re.IGNORECASE)
CAMERA_NAME = re.compile(r"^(img|dsc[fn]?|dscn|pict|p|image|photo|pic|screenshot)[\s_-]*\d[\d\s_-]*$", re.IGNORECASE)
# What pages write where no caption is.
ALT_TEXTS = {
    "advertisement", "alt", "avatar", "background", "banner", "blank", "button", "caption", "cover", "default", "icon",
    "image", "img", "loading", "logo", "photo", "pic", "picture", "placeholder", "preview", "spacer", "thumbnail",
    "untitled", "video", "wallpaper",
    "default image", "featured image", "no image", "no image available", "no photo available", "profile picture",
    "image not found", "image may contain", "click to enlarge", "click for larger image", "enlarge image",
    "product image", "related image", "user avatar", "company logo", "site logo", "share on facebook",
}  # fmt: skip
LEAST_WORDS_TO_REPEAT = 4  # fewer say nothing about repetition


@dataclass(frozen=True)
class CaptionRules:
    """Which captions are left out; the plain rules leave none out that has a visible sign."""

    min_words: int = 1  # words are what spaces part; languages without spaces are measured in characters
    max_words: int | None = None
    min_characters: int = 1
    max_characters: int | None = None
    min_letter_share: float = 0.0  # of the characters that are no spaces
    max_repeat_share: float = 1.0  # of the commonest word, among four or more
    drop_links: bool = False  # captions with an address in them
    drop_alt_texts: bool = False  # names of files and cameras, and the built-in list of what pages write everywhere
    blacklist: tuple[str, ...] = ()  # whole captions, whatever their case


def clean_text(text: str) -> str:
    """The text on one line: no control or hidden signs, runs of spaces made one, composed as NFC; may be empty."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(_visible(sign) for sign in text))
    elif not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(text.split())


def check_caption(caption: str, rules: CaptionRules) -> None:
    """Unusable with the rule that a cleaned caption breaks."""
    words, signs = caption.split(), len(caption)
    if len(words) < rules.min_words or signs < rules.min_characters:
        raise Unusable("caption too short", f"{len(words)} words, {signs} characters")
    if (rules.max_words and len(words) > rules.max_words) or (rules.max_characters and signs > rules.max_characters):
        raise Unusable("caption too long", f"{len(words)} words, {signs} characters")
    if rules.min_letter_share > 0 and (share := _letter_share(caption)) < rules.min_letter_share:
        raise Unusable("caption of few letters", f"{share:.2f} of it")
    if rules.max_repeat_share < 1 and len(words) >= LEAST_WORDS_TO_REPEAT:
        word, count = Counter(word.casefold() for word in words).most_common(1)[0]
        if count > rules.max_repeat_share * len(words):
            raise Unusable("caption repeats itself", f"{word!r} {count} times in {len(words)} words")
    if rules.drop_links and (link := LINK.search(caption)):
        raise Unusable("caption with a link", link.group())
    folded = fold(caption)
    if rules.drop_alt_texts and (folded in ALT_TEXTS or FILE_NAME.match(caption) or CAMERA_NAME.match(caption)):
        raise Unusable("alternative text of no content", caption)
    if folded in rules.blacklist:
        raise Unusable("blacklisted caption", caption)


def fold(caption: str) -> str:
    """The caption as the blacklist compares it: no case, no signs at its ends."""
    return clean_text(caption).casefold().strip(" .,:;!?\"'()[]{}<>-_*|")


def _visible(sign: str) -> str:
    if sign in HIDDEN_SIGNS:
        return ""
    # Cc: control signs; Zl, Zp: separators of lines and paragraphs.
    return " " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign


def _letter_share(caption: str) -> float:
    # Marks (M) are parts of letters in Indic and other scripts.
    signs = [sign for sign in caption if not sign.isspace()]
    return sum(unicodedata.category(sign)[0] in "LM" for sign in signs) / max(len(signs), 1)

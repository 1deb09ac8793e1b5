"""Captions on their way into a shard."""

import pytest

from data_tools.left_out import Unusable
from data_tools.texts import CaptionRules, check_caption, clean_text, fold


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a\tcat\r\n on  a mat ", "a cat on a mat"),
        ("a\x00b\x1b[31mred\x7f", "a b [31mred"),
        ("left\u202eright\u2066x\u200by\ufeff", "leftrightxy"),
        ("line\u2028and\u2029paragraph\u0085next", "line and paragraph next"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\u732b\u304c\u3044\u308b", "\u732b\u304c\u3044\u308b"),
        ("\x00\x01\u200b", ""),
    ],
)
def test_control_and_hidden_signs_go_and_letters_of_all_scripts_stay(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize(
    ("caption", "rules", "reason"),
    [
        ("a cat", CaptionRules(min_words=3), "caption too short"),
        ("\u732b", CaptionRules(min_characters=2), "caption too short"),
        ("one two three", CaptionRules(max_words=2), "caption too long"),
        ("one two three", CaptionRules(max_characters=5), "caption too long"),
        ("12345 --- 99", CaptionRules(min_letter_share=0.5), "caption of few letters"),
        ("buy buy buy buy now", CaptionRules(max_repeat_share=0.5), "caption repeats itself"),
        ("see www.shop.example", CaptionRules(drop_links=True), "caption with a link"),
        ("write to me@host.org", CaptionRules(drop_links=True), "caption with a link"),
        ("IMG_1234", CaptionRules(drop_alt_texts=True), "alternative text of no content"),
        ("dsc-0077.JPG", CaptionRules(drop_alt_texts=True), "alternative text of no content"),
        ("[Profile Picture]", CaptionRules(drop_alt_texts=True), "alternative text of no content"),
        ("Our Logo!", CaptionRules(blacklist=(fold("our logo"),)), "blacklisted caption"),
    ],
)
def test_each_rule_leaves_out_what_it_names(caption, rules, reason):
    check_caption(caption, CaptionRules())
    with pytest.raises(Unusable) as caught:
        check_caption(caption, rules)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "caption",
    [
        "a cat sits on a mat",
        "the image of a saint",
        "photo of 3 dogs",
        "no no, that is not it",
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    ],
)
def test_ordinary_captions_pass_strict_rules(caption):
    strict = CaptionRules(2, 50, 5, 300, 0.5, 0.5, drop_links=True, drop_alt_texts=True, blacklist=("logo",))
    check_caption(caption, strict)

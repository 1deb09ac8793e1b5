"""Text from outside on its way to terminals and published files."""

import pytest

from mmtrain.io.text import encodable, printable, redact, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines\r", r"two\nlines\r"),
        ("d\udce9t", r"d\xe9t"),
        ("half \ud83d", r"half \ud83d"),
        ("right‮left", r"right\u202eleft"),
        ("plain é 图", "plain é 图"),
    ],
)
def test_control_signs_and_surrogates_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:secret@h/a.tar", "https://***@h/a.tar"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("http://h/x.tar?X-Amz-Signature=secret#secret", "http://h/x.tar?***#***"),
        ("reads http://h/x?sig=secret, then more", "reads http://h/x?***, then more"),
        ("http://u:secret@[::1/x?sig=secret", "http://***@[::1/x"),
        ("pipe:curl -H 'Authorization: Bearer secret' http://h", "pipe:***"),
        ("curl -H 'Authorization: Bearer secret' ...", "curl -H 'Authorization: ***' ..."),
        ("data/train", "data/train"),
    ],
)
def test_secrets_of_addresses_are_hidden(text: str, shown: str) -> None:
    assert "secret" not in redact(text)
    if "then" not in text:
        assert redact(text) == shown


def test_only_surrogates_are_escaped_where_text_is_kept() -> None:
    assert encodable("d\udce9t é\t\ud83d") == "d\\xe9t é\t\\ud83d"


@pytest.mark.parametrize(
    ("address", "published"),
    [
        ("http://u:p@h/a.jpg", "http://***@h/a.jpg"),
        ("http://u:p@h/a.jpg?id=1", "http://***@h/a.jpg?***"),
        ("https://h/a.jpg?id=12&size=large", "https://h/a.jpg?id=12&size=large"),
        ("https://h/a.jpg?id=12&X-Amz-Signature=abc", "https://h/a.jpg?***"),
        ("https://h/a.jpg?sv=1&sig=abc", "https://h/a.jpg?***"),
        ("https://h/a.jpg?Expires=1&Policy=x", "https://h/a.jpg?***"),
        ("https://h/a.jpg?hm=0123456789abcdef0123456789abcdef", "https://h/a.jpg?***"),
        ("https://h/a.jpg#access_token=abc", "https://h/a.jpg#***"),
        ("pairs.csv: https://h/a.jpg?token=abc", "pairs.csv: https://h/a.jpg?***"),
        ("token=abc.jpg", "token=abc.jpg"),
        ("photos/0.jpg", "photos/0.jpg"),
    ],
)
def test_a_published_address_keeps_what_is_no_credential(address: str, published: str) -> None:
    assert without_credentials(address) == published
    assert without_credentials(published) == published


def test_a_long_text_is_searched_for_addresses_in_linear_steps() -> None:
    # A scheme has an end: else each letter of a long word would begin a search to that word's end.
    word = "a" * 200_000
    assert redact(f"{word}://u:secret@h") == redact(word + "://***@h") and redact(word) == word

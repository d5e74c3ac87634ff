from liftplace.common.text_table import text_table

ROWS = [["", "a", "long"], ["name", "10", "1"], ["n", "9", ""]]


def test_the_first_column_stands_at_the_left_and_the_others_at_the_right():
    assert text_table(ROWS).splitlines() == [
        "       a  long",
        "name  10     1",
        "n      9",
    ]


def test_more_columns_at_the_left_and_a_rule():
    assert text_table(ROWS, left=2, ruled=True).splitlines() == [
        "      a   long",
        "----  --  ----",
        "name  10     1",
        "n     9",
    ]

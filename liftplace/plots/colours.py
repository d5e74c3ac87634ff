"""The colours of lines in pictures."""

# Okabe and Ito's palette, which colour-blind readers can tell apart; without its yellow, which is
# too pale for a line on white.
OKABE_ITO = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "purple": "#CC79A7",
    "sky blue": "#56B4E9",
    "black": "#000000",
}

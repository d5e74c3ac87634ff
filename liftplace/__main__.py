"""python -m liftplace, and so accelerate launch -m liftplace."""

from liftplace.cli import main

main()

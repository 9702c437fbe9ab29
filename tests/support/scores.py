"""Texts of scores, good and bad, that the pack and its page must read alike."""

from __future__ import annotations

PLAIN = r"""
0: a; 4 (2): b|0: a;; b 12:30;~2:x\; 3: y;|0: a; 1.5: b|0: a; -1: b|0: a; 2 (0): b|0: a; 2 (x): b|0: a; 2 (): b
0: a; 2 (3): b; 4: c|0 (1): a|0 (2): a|1: a||0:|0: a~ 007 ( 2 ) : b|0: a; 2: |x~0: a|0: a; 2: b; 2: c|0: 4: a; 5:6
0: a; 100000: b|0: a; 100001: b"""
SETTINGS = r"""
0 [seed 3]: a red [big] circle; 4 (2) [cfg  2, cut, image "a b, c].png" 0.4]: a square ;~ 6 [seed 4,drift 0]:
0 [seed 3]: a|0[seed 3]:a|0 ( 1 )[ seed 3 ]: a|0: a~2 [seed 7]:~~4: b|0: a; 3 [seed 9]: ; 5: b;
0: a; 2 (4): b; 3 [seed 9]:
0: a [seed 3] sown|0: x~4 [wide shot]: y|0: x; 4 []: y|0: [cut] to black|0: x~[seed 3]: y
0: x; 4 [16:9]: y|0: x; 4 [cute]: y
0: a; 4 [sed 7]: b|0: a; 4 [seed x]:|0: a; 4 [seed 18446744073709551615]:|0: a; 4 [seed 18446744073709551616]:
0: a; 4 [seed 7,]: b|0: a; 4 [seed 7,, cut]: b|0: a; 4 [,cut]: b|0: a; 4 [seed 7 8]:
0: a; 4 [seed]:|0: a; 4 [seed -1]:
0: a; 4 [cfg 101]:|0: a; 4 [cfg .5]:|0: a; 4 [cfg 5.]:|0: a; 4 [cfg 1e1]:|0: a; 4 [drift 1.5]:|0: a; 4 [drift 1]:
0: a; 4 [image cat.png]: b|0: a; 4 [image cat.png 0]: b|0: a; 4 [image cat.png 2]: b|0: a; 4 [image cat.png .5]: b
0: a; 4 [image "" 1]:|0: a; 4 [image "a" 1]:|0: a; 4 [image a b.png 1]:|0: a; 4 [image a"b" 1]:|0: a; 4 [image "a]: b
0: a; 4 [cut now]: b|0: a; 4 [cut, cut]: b|0: a; 4 [end]:|0 [end]: a|0 [cut, seed 1]:
0 [seed 1]:; 2: b|0: a; 4 [end]: b
0: a; 4 (2) [seed 1]:|0: a; 4 (1) [seed 1]:|0 (2) [seed 1]: a|2 [seed 1]:; 3: a
0: a; 4 [seed 1]:; 3: b|0: a; 4 [seed 1]:; 4: b
0: a; 2 (4): b; 4 [cut]:; 6: c|0: a; 2 (4): b; 4 [cut]:; 5: c|0: a; 3 [cfg 2] b: c
0: a; 3 [cfg 2]:7|0: a;~3 [seed 1~]: b
0: a; 2 [cfg 2, cfg 3]:|0: a; 2 [Seed 3]:|0: a; 2 [seed	7]:|0: a; 2 [seed	7, cut ]: b
0: a; 2 [image	x.png	1]:|0: a; 2 [end, cut]:
0: a; 1 [seed 3 a|0: a; 1 [seed 3: b|0: a~1 (2) [cfg 2, cut: b~3: c|0: a; 1 [wide shot: b|0: [seed 3 a|0: a \\; 1 [cut
0: a; 1 [seed 3 a; 2: b|0: a; 1 [seed 3 a; 2 [cut]: b|0: a; 1 [seed 3"""


def texts() -> list[str]:
    """All of them; in the table, '|' stands between two and '~' for a line break."""
    return [text.replace("~", "\n") for line in (PLAIN + SETTINGS).strip().splitlines() for text in line.split("|")]

"""
A folder of ten thousand pictures
=================================

``cnnviz.batch`` explains a data set, and goes on where an earlier run ended. Nothing is loaded into memory before it is
used. On the command line it is ``cnnviz batch FOLDER OUT``.

Here are 16 drawn pictures. The same call takes a folder of ten thousand.
"""

from pathlib import Path

from PIL import Image

import cnnviz
from cnnviz.demo.drawing import draw

drawn = draw(16, seed=2)
for number, (picture, label) in enumerate(zip(drawn.pictures, drawn.labels, strict=True)):
    folder = Path("photographs") / cnnviz.demo.CATEGORIES[label]  # the name of the folder is the true class
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{number}.png")

# %%
# Before anything is computed, ``--dry-run`` measures a few pictures, and tells how long all of them take, and how much
# space::
#
#    cnnviz batch photographs out --model demo --method grad_cam --dry-run
#
# Then the run. ``workers=0`` computes in this process. Leave it away, and there is a worker for each processor; a
# script then needs the call under ``if __name__ == "__main__":``.

run = cnnviz.batch(cnnviz.load_model("demo"), "photographs", "grad_cam", "out", metrics="sparseness", workers=0)
run

# %%
# ``open_batch`` reads it at any time, also while it goes on. A map is an explanation as any other.

answers = cnnviz.open_batch("out")["grad_cam"]
wrong = answers[[row["label"] != row["class"] for row in answers.table()]]
print(f"{len(wrong)} of {len(answers)} pictures are classified wrong")
answers[:4].grid().save("ten-thousand.png")
answers[0]

"""Maps in TensorBoard, at the end of each epoch of a training: does the network look at the right things by now?"""

import torch
from torch.utils.tensorboard import SummaryWriter

import cnnviz
from cnnviz import demo

network = demo.untrained("demo", classes=8)
pictures = demo.as_inputs(demo.pictures().pictures)
labels = torch.arange(8)
watched = pictures[:4]
optimizer = torch.optim.Adam(network.parameters(), 1e-3)

with SummaryWriter("runs") as writer:
    for epoch in range(2):
        network.train()
        loss = torch.nn.functional.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        network.eval()  # cnnviz leaves the mode to you
        maps = cnnviz.explain(network, watched, "grad_cam", preprocessing=demo.preprocessing(), target=labels[:4])
        writer.add_images("grad_cam", maps.render("overlay"), epoch, dataformats="NHWC")
        writer.add_scalar("loss", loss, epoch)

"""
During a training: Lightning and TensorBoard
============================================

Does the network look at the right things by now? At the end of each epoch the maps of a few pictures go to TensorBoard.

The class has the shape of a LightningModule, and the loop below calls it as Lightning's trainer does. Lightning itself
is not needed here. In Lightning, the two methods stand in your module as they are, with ``self.logger.experiment`` as
the writer.
"""

import torch
from torch.utils.tensorboard import SummaryWriter

import cnnviz
from cnnviz import demo


class Classifier(torch.nn.Module):
    def __init__(self, watched, labels, writer):
        super().__init__()
        self.network = demo.untrained("demo", classes=8)
        self.watched, self.labels, self.writer = watched, labels, writer

    def training_step(self, batch):
        pictures, labels = batch
        return torch.nn.functional.cross_entropy(self.network(pictures), labels)

    def on_validation_epoch_end(self, epoch):
        # the trainer has called eval(), and has turned gradients off; cnnviz turns them on where it needs them
        maps = cnnviz.explain(
            self.network, self.watched, "grad_cam", preprocessing=demo.preprocessing(), target=self.labels
        )
        self.writer.add_images("grad_cam", maps.render("overlay"), epoch, dataformats="NHWC")
        return maps


# %%
# The loop of a trainer:

pictures, labels = demo.as_inputs(demo.pictures().pictures), torch.arange(8)
with SummaryWriter("runs") as writer:
    module = Classifier(pictures[:4], labels[:4], writer)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for epoch in range(2):
        module.train()
        loss = module.training_step((pictures, labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        writer.add_scalar("loss", loss, epoch)

        module.eval()
        with torch.no_grad():
            maps = module.on_validation_epoch_end(epoch)

# %%
# What the last epoch logged. After two steps of training it is still noise.

maps

"""How a pass may be computed faster, with results equal up to rounding. Nothing here changes what is computed.

Every speed-up of the package, also those of other rooms:

channels last (``memory_format``)
    Applies to float32 pictures on x86 CPUs, where the weights are few beside the places they act on; on CUDA to large
    batches of pictures, in passes without a graph that compute in TF32 or in half of float32. Detected before the pass
    by these facts. Verified in each pass by what it calls: strides, memory, operators of other libraries, writes
    through what is a view in one format only. Falls back to the ordinary memory format, for this pass and all later
    ones of the model.
batch norm as one multiplication (``batch_norm``)
    Applies where the memory format is channels last, and on CUDA to gradients of large batches. Detected at each call:
    fixed statistics that carry no gradients. Equal by algebra. Falls back to torch's own batch norm, for that call.
folding (``conv_bn_folding``)
    Applies with ``fold=True``. Detected in a pass of one input: a batch norm that alone reads a convolution which
    ran once. Verified on that input by ``agreement.outputs_agree``. Raises ValueError where it differs: it was
    asked for. A model that reads values of the pass is left as it is, with a warning.
compilation (``compilation``)
    Applies with ``compile=True``, to passes that leave nothing but scores. Verified on the question's inputs by
    ``agreement.outputs_agree``. Raises ValueError where it differs: it was asked for.
lower precision (``autocast``)
    Applies with ``precision="bfloat16"`` or ``"float16"``. Not equal: its page tells by how much. Weights are converted
    once for each question.
TF32 (``tf32``, ``precision_turns``)
    Applies with ``precision="tf32"`` on CUDA, where ``precision="float32"`` is exact. Not equal. torch's flags are for
    all threads: they are put back when the question ends, and questions in another precision wait.
batches of variants (``run.batch_independence``)
    Applies to every evaluation at other inputs. Proven by the operations of a pass (``batch_axis``); where one is not
    known, tested bit by bit beside other neighbours. Verified by the score of the first variant alone, with
    ``agreement.agrees``. Once for each question and size of a chunk. Falls back to one batch at a time; where Python
    reads values of the batch, to one input at a time (``item_traces``).
incremental evaluation (``incremental.evaluator``)
    Applies to changed layers and changed boxes. Detected in a recorded pass: no side effects, every operation and
    every tensor that enters one is known. Variants are replayed together under the same proof as batches. Verified by
    ``agreement.agrees`` on one variant of the middle and on the one that moves the score most, once for each sequence
    of operations in a question. Falls back to whole passes: for one chunk of variants that fails, or for all.

What is found out about a model is remembered by ``engine.model_facts``, as long as it is made of the same modules.
"""

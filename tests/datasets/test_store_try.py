import cnnviz, torch
def test_try(batch, whole_run):
    print(batch, batch.methods, batch.metrics)
    print(batch[0], batch["gradient"][1].notes)
    print(batch.table()); print(batch.failed); print(batch.verify(), batch.ids)
    print(batch.answered["grad_cam"].maps().shape, batch.answered["gradient"].maps(size=(16,16), sign="auto").shape)
    e=batch[0]["grad_cam"]; print(sorted(vars(e)))
    print(e.heatmap().shape, sorted(vars(e)), e.usual_renderer)
    print(e.render().shape, e.render(at="original")[0].shape, e.originals)
    x=cnnviz.explain(cnnviz.load_model("demo"), whole_run.files[0], "grad_cam")
    print((x.values-e.values).abs().max(), torch.equal(x.inputs,e.inputs), x.titles(), e.titles())
    batch[:3].grid()
    print(batch.to_arrow().schema, batch.to_dataframe())
    try: batch[3]
    except LookupError as r: print(r)

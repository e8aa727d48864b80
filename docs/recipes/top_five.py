"""The five classes that the model finds most probable, and what speaks for each."""

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

for prediction in model.predict(picture, top=5)[0]:
    print(f"{prediction.name}: {prediction.probability:.1%}")

ranks = cnnviz.explain(model, picture, "grad_cam", target=cnnviz.targets.top(5))
ranks.grid(columns=3, at="original").save("top-five.png")

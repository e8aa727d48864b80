"use strict";

// Whatever comes from a file, a model or a plugin becomes text by textContent alone.

const at = (id) => document.getElementById(id);
const meta = document.querySelector('meta[name="cnnviz-page"]');
const STARTS_WITH = ["grad_cam", "guided_backprop"];
const QUICK = 4000; // milliseconds after which an answer is not renewed by itself
const state = {
  choices: null, picture: null, predictions: null, target: null, extra: null, formula: null, valid: true,
  job: null, results: [], shown: null, took: 0, turn: 0,
};

history.replaceState(null, "", "/"); // the token is in the cookie now

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function ask(path, body, type = "application/json") {
  const asked = { cache: "no-store", credentials: "same-origin" };
  if (body !== undefined) {
    asked.method = "POST";
    asked.headers = { "X-Cnnviz-Page": meta.content, "Content-Type": type };
    asked.body = type === "application/json" ? JSON.stringify(body) : body;
  }
  let answer;
  try {
    answer = await fetch(path, asked);
  } catch {
    throw new Error("The server does not answer. Start cnnviz serve again, and open the address that it prints.");
  }
  if (answer.headers.get("content-type") !== "application/json") {
    if (answer.ok) return answer.text();
    throw new Error(await answer.text());
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const percent = (share) => share < 0.001 ? (share > 0 ? "< 0.1 %" : "0 %")
  : share < 0.0995 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`;
const sizes = (lengths) => lengths.join(" × ");
const number = (value) => value === 0 ? "0" : Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3
  ? value.toExponential(1) : value.toPrecision(3);
const model = () => state.choices.models[Number(at("model").value)];
const className = (index) => index === -1 ? "not class 0" : model().classes?.[index] ?? `class ${index}`;

function show(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

// ------------------------------------------------------------------ picture

async function send(file) {
  show("picture-error", "");
  if (file.size > Number(meta.dataset.upload)) {
    show("picture-error", `The file has ${Math.round(file.size / 2 ** 20)} MB; at most ${meta.dataset.upload / 2 ** 20} MB are taken.`);
    return;
  }
  status("Reading the picture.");
  await keep(() => ask(`/pictures?name=${encodeURIComponent(file.name || "pasted.png")}`, file, "application/octet-stream"));
}

async function keep(sending) {
  try {
    await started; // a person may be faster than the first answer
    const turn = ++state.turn;
    const kept = await sending();
    if (turn !== state.turn) return; // another one was sent meanwhile
    state.picture = kept;
  } catch (error) {
    show("picture-error", error.message);
    status(state.picture ? "" : "Choose a picture first.");
    return;
  }
  const { picture, name, width, height } = state.picture;
  show("picture-error", "");
  at("thumb").src = `/pictures/${picture}`;
  at("thumb").alt = `The picture ${name}`;
  at("thumb").hidden = false;
  at("picture-name").textContent = `${name}, ${width} × ${height} pixels`;
  at("choose").textContent = "Choose another";
  at("empty").hidden = true;
  state.target = null;
  await stop();
  drawCards([]);
  await predict();
  if (state.shown === null) drawCards([]);
  if (ready()) await explain();
}

// ------------------------------------------------------------------ classes

async function predict() {
  state.predictions = null;
  state.target = null;
  state.extra = null;
  drawClasses();
  if (!state.picture) return;
  const turn = state.turn;
  status("Asking the model what it sees.");
  try {
    const { job } = await ask("/jobs", { kind: "predict", model: Number(at("model").value), picture: state.picture.picture });
    let told;
    do {
      told = await ask(`/jobs/${job}`);
      if (told.state === "waiting" || told.state === "running") await pause(60);
    } while (told.state === "waiting" || told.state === "running");
    if (turn !== state.turn) return;
    if (told.error) throw new Error(told.error);
    state.predictions = told.answer.classes;
    if (model().regions) state.target = state.predictions[0].index;
    status("");
    drawClasses();
  } catch (error) {
    if (turn !== state.turn) return;
    status("");
    at("class-about").textContent = `The model names no class: ${error.message}`;
    at("class-about").hidden = false;
  }
}

function classChoice(name, index, probability, score, label) {
  const input = make("input", { type: "radio", name: "class", checked: state.target === index });
  input.addEventListener("change", () => { state.target = index; changed(); });
  const text = make("span", { className: "share" }, make("span", { textContent: label ?? name }));
  if (probability != null) {
    text.append(make("span", { className: "quiet small", textContent: percent(probability) }));
    text.append(make("meter", { min: 0, max: 1, value: probability, ariaLabel: "probability" }));
  } else if (score != null) {
    text.append(make("span", { className: "quiet small", textContent: number(score) }));
  }
  return make("label", { className: "choice" }, input, text);
}

function drawClasses() {
  const list = [];
  const known = state.predictions ?? [];
  at("class-about").hidden = known.length > 0 && !model().regions;
  if (model()?.regions) at("class-about").textContent = "The model names a class for each place. Shares are of the picture.";
  known.forEach((each, rank) => {
    const name = className(each.index);
    const index = rank === 0 && !model().regions ? null : each.index;
    list.push(classChoice(name, index, each.probability ?? each.share, each.score));
  });
  if (state.extra !== null && !known.some((each) => each.index === state.extra)) {
    list.push(classChoice(className(state.extra), state.extra));
  }
  at("classes").replaceChildren(...list);
}

function findClasses() {
  const words = at("find-class").value.trim().toLowerCase();
  const names = model().classes, count = model().count ?? names?.length;
  const found = [];
  if (words && /^\d+$/.test(words) && Number(words) < (count ?? Infinity)) found.push(Number(words));
  if (words && names) {
    const starts = [], holds = [];
    names.forEach((name, index) => {
      const place = name.toLowerCase().indexOf(words);
      if (place === 0) starts.push(index);
      else if (place > 0) holds.push(index);
    });
    found.push(...[...starts, ...holds].filter((index) => !found.includes(index)));
  }
  const list = found.slice(0, 8).map((index) => {
    const button = make("button", { type: "button", className: "link", textContent: `${className(index)} (${index})` });
    button.addEventListener("click", () => {
      const best = state.predictions?.[0];
      state.extra = best?.index === index ? null : index;
      state.target = state.extra;
      at("find-class").value = "";
      findClasses();
      drawClasses();
      changed();
      at("classes").querySelector("input:checked")?.focus();
    });
    return make("div", { className: "choice" }, button);
  });
  if (words && !found.length) list.push(make("p", { className: "quiet small", textContent: "No class is called so." }));
  if (found.length > 8) list.push(make("p", { className: "quiet small", textContent: `${found.length - 8} more; type more of the name.` }));
  at("found-classes").replaceChildren(...list);
}

// ------------------------------------------------------------------ model, layers, methods

function drawModel() {
  const { classes, count, input, layers, automatic } = model();
  const parts = [];
  if (classes ?? count) parts.push(`${classes?.length ?? count} classes`);
  if (input) parts.push(`sees ${sizes(input)} pixels`);
  at("model-about").textContent = parts.join(", ");
  const options = [make("option", { value: "", textContent: automatic ? `Automatic: ${automatic}` : "Automatic" })];
  for (const { name, shape } of layers) options.push(make("option", { value: name, textContent: `${name} (${sizes(shape)})` }));
  at("layer").replaceChildren(...options);
  at("layer").disabled = layers.length === 0;
  at("other-class").hidden = model().regions; // a class that is named nowhere has no places to ask about
  at("find-class-label").textContent = classes ? "Find another class" : "Another class, by number";
  findClasses();
}

function drawMethods() {
  const first = (method) => STARTS_WITH.includes(method.name) ? 0 : 1;
  const methods = [...state.choices.methods].sort((one, other) => first(one) - first(other));
  const list = methods.map(({ name, summary, loads }) => {
    const input = make("input", { type: "checkbox", value: name, disabled: !loads, checked: loads && STARTS_WITH.includes(name) });
    input.addEventListener("change", () => { countMethods(); changed(); });
    return make("label", { className: "choice" }, input, make("span", {}, name, make("span", { textContent: summary })));
  });
  at("methods").replaceChildren(...list);
  countMethods();
}

const chosenMethods = () => [...at("methods").querySelectorAll("input:checked")].map((input) => input.value);

function countMethods() {
  const count = chosenMethods().length;
  at("methods-count").textContent = count ? `(${count} chosen)` : "(none chosen)";
}

function findMethods() {
  const words = at("find-method").value.trim().toLowerCase();
  for (const label of at("methods").children) label.hidden = !label.textContent.toLowerCase().includes(words);
}

// ------------------------------------------------------------------ formula

let typing = 0;

function typed() {
  clearTimeout(typing);
  mark(null);
  state.valid = !at("formula").value.trim();
  typing = setTimeout(readFormula, 250);
  refresh();
}

async function readFormula() {
  const text = at("formula").value;
  state.formula = null;
  if (!text.trim()) {
    state.valid = true;
    says("");
    mark(null);
    changed();
    return;
  }
  let told;
  try {
    told = await ask("/formula", { text });
  } catch (error) {
    told = { error: error.message, start: 0, stop: 0 };
  }
  if (at("formula").value !== text) return;
  state.valid = !told.error;
  if (told.error) {
    mark(told);
    says(told.error, true);
    if (told.hint) {
      const mend = make("button", { type: "button", className: "link", textContent: `Write ${told.hint} there` });
      mend.addEventListener("click", () => {
        const letters = [...text];
        at("formula").value = letters.slice(0, told.start).join("") + told.hint + letters.slice(told.stop).join("");
        at("formula").focus();
        typed();
      });
      at("formula-says").append(" ", mend);
    }
  } else {
    state.formula = text;
    mark(null);
    says(told.passes > 1000 ? "It can be explained. It asks the model many times, which may take long." : "It can be explained.");
  }
  changed();
}

function mark(told) {
  const letters = [...at("formula").value]; // places are counted in characters, as Python does
  at("formula").setAttribute("aria-invalid", told ? "true" : "false");
  if (!told) {
    at("formula-marks").textContent = at("formula").value;
    return;
  }
  const stop = Math.max(told.stop, told.start + 1);
  const wrong = letters.slice(told.start, stop).join("") || " ";
  at("formula-marks").replaceChildren(
    letters.slice(0, told.start).join(""), make("mark", { textContent: wrong }), letters.slice(stop).join(""),
  );
}

function says(text, wrong = false) {
  at("formula-says").textContent = text;
  at("formula-says").classList.toggle("error", wrong);
}

// ------------------------------------------------------------------ asking

const ready = () => Boolean(state.picture) && state.valid && (chosenMethods().length > 0 || state.formula !== null);

function refresh() {
  at("explain").disabled = !ready();
  if (state.job) return;
  if (!state.picture) status("Choose a picture first.");
  else if (!state.valid) status("Mend the formula first, or empty it.");
  else if (!ready()) status("Choose a method, or write a formula.");
}

function changed() {
  refresh();
  if (!state.shown && !state.job) return;
  if (ready() && state.took < QUICK && !state.job) explain();
  else if (ready() && state.job) explain();
  else if (ready()) {
    for (const card of at("cards").querySelectorAll("figure.answer")) card.classList.add("old");
    status("The question has changed. Press Explain.");
  }
}

function status(text) {
  if (at("status").textContent !== text) at("status").textContent = text;
}

async function stop() {
  const job = state.job;
  state.job = null;
  running(false);
  if (job) await ask(`/jobs/${job}/cancel`, {}).catch(() => null);
}

function running(is) {
  const [from, to] = is ? ["explain", "cancel"] : ["cancel", "explain"];
  const focused = document.activeElement === at(from);
  at("cancel").hidden = at("progress").hidden = at("passes").hidden = !is;
  at("explain").hidden = is;
  if (focused) at(to).focus({ preventScroll: true }); // the other one vanishes
  at("to-answers").hidden = is || !state.shown;
}

async function explain() {
  if (!ready()) return;
  await stop();
  const turn = ++state.turn;
  const began = performance.now();
  const question = {
    model: Number(at("model").value), picture: state.picture.picture, target: state.target,
    layer: at("layer").value || null, methods: chosenMethods(), formulas: state.formula === null ? [] : [state.formula],
  };
  let job;
  try {
    ({ job } = await ask("/jobs", question));
  } catch (error) {
    if (turn === state.turn) status(error.message);
    return;
  }
  if (turn !== state.turn) {
    ask(`/jobs/${job}/cancel`, {}).catch(() => null);
    return;
  }
  state.job = job;
  running(true);
  at("progress").value = 0;
  status("Waiting for its turn.");
  const count = question.methods.length + question.formulas.length;
  for (let wait = 30; ; wait = Math.min(1.5 * wait, 250)) {
    let told;
    try {
      told = await ask(`/jobs/${job}`);
    } catch (error) {
      if (turn === state.turn) {
        state.job = null;
        running(false);
        status(error.message);
      }
      return;
    }
    if (turn !== state.turn) return;
    if (told.results.length && (state.shown?.job !== job || state.results.length !== told.results.length)) {
      drawCards(told.results, job);
    }
    at("progress").value = told.share;
    at("passes").textContent = told.total > 1 ? `${told.passed.toLocaleString("en")} of ${told.total.toLocaleString("en")} passes` : "";
    if (told.state === "running") {
      const step = count > 1 ? `, ${Math.min(told.results.length + 1, count)} of ${count}` : "";
      status(`Computing ${told.doing}${step}.`);
    }
    if (told.state !== "waiting" && told.state !== "running") {
      state.job = null;
      running(false);
      state.took = performance.now() - began;
      at("to-answers").hidden = !state.shown;
      if (told.state === "cancelled") status("Cancelled. The answers that were done by then are shown.");
      else if (told.state === "failed") status(told.error);
      else {
        const failed = told.results.filter((result) => result.error).length;
        status(failed ? `Done; ${failed} of ${count} could not be computed.` : `Done in ${(state.took / 1000).toFixed(1)} s.`);
      }
      refresh();
      drawPython();
      return;
    }
    await pause(wait);
    if (turn !== state.turn) return;
  }
}

// ------------------------------------------------------------------ answers

function chosenSettings() {
  const settings = {};
  for (const input of at("settings").querySelectorAll("[data-setting]")) {
    const { setting, kind, preset } = input.dataset;
    const value = kind === "switch" ? input.checked : kind === "choice" ? JSON.parse(input.value) : input.value === "" ? null : Number(input.value);
    if (value !== null && JSON.stringify(value) !== preset) settings[setting] = value;
  }
  return settings;
}

function drawing(more = {}) {
  const query = new URLSearchParams({ renderer: at("renderer").value, at: at("at").value, ...more });
  if (at("renderer").value) query.set("settings", JSON.stringify(chosenSettings()));
  return query.toString();
}

function drawSettings() {
  const renderer = state.choices.renderers.find(({ name }) => name === at("renderer").value);
  const fields = (renderer?.settings ?? []).map((told) => settingField(renderer, told));
  const rest = fields.splice(3);
  if (rest.length) {
    fields.push(make("details", {}, make("summary", { textContent: "More settings" }), make("div", {}, ...rest)));
  }
  at("settings").replaceChildren(...fields);
}

function settingField(renderer, told) {
  const id = `setting-${told.name}`;
  const value = renderer.usual[told.name] ?? told.default;
  let input;
  if (told.kind === "choice") {
    input = make("select", { id });
    for (const choice of told.choices) {
      input.append(make("option", { value: JSON.stringify(choice), textContent: choice ?? "usual", selected: choice === value }));
    }
  } else if (told.kind === "switch") {
    input = make("input", { id, type: "checkbox", checked: value });
  } else if (told.kind === "share") {
    input = make("input", { id, type: "range", min: 0, max: 1, step: 0.05, value });
  } else {
    input = make("input", { id, type: "number", step: told.whole ? 1 : "any", value: value ?? "", placeholder: "usual" });
  }
  input.dataset.setting = told.name;
  input.dataset.kind = told.kind;
  input.dataset.preset = JSON.stringify(told.default);
  if (told.meaning) input.title = told.meaning;
  input.addEventListener(told.kind === "share" ? "input" : "change", redrawSoon);
  const label = make("label", { htmlFor: id, textContent: told.name.replaceAll("_", " ") });
  return told.kind === "switch"
    ? make("span", { className: "field switch" }, input, label) : make("span", { className: "field" }, label, input);
}

let redrawing = 0;
function redrawSoon() {
  clearTimeout(redrawing);
  redrawing = setTimeout(redraw, 120);
}

function redraw() {
  for (const card of at("cards").querySelectorAll("figure.answer")) card.redraw?.();
  drawPython();
}

function drawCards(results, job = null) {
  const last = state.shown?.job;
  state.results = results;
  state.shown = job ? { job } : null;
  at("view").hidden = !state.picture;
  if (job === null) {
    at("cards").replaceChildren(pictureCard());
    at("python").hidden = true;
    return;
  }
  if (job !== last) at("cards").replaceChildren(pictureCard());
  const there = at("cards").querySelectorAll("figure.answer").length;
  results.slice(there).forEach((result, number) => at("cards").append(card(result, job, there + number)));
}

function pictureCard() {
  const { picture, name, width, height } = state.picture;
  const best = state.predictions?.[0];
  const share = best?.probability ?? best?.share;
  const seen = best ? `The model sees ${className(best.index)}${share == null ? "" : `, ${percent(share)}`}.` : "";
  const image = make("img", { id: "shown-picture", src: `/pictures/${picture}`, alt: `The picture ${name}` });
  return make("figure", {}, make("div", { className: "frame" }, image),
    make("figcaption", {}, make("h3", { textContent: name }), make("p", { className: "small", textContent: seen }),
      make("p", { className: "quiet small", textContent: `${width} × ${height} pixels` })));
}

function card(result, job, place) {
  const caption = make("figcaption", {}, make("h3", { textContent: result.method }));
  for (const warning of result.warnings) caption.append(make("p", { className: "warning", textContent: warning }));
  if (result.error) {
    caption.append(make("p", { className: "error", textContent: result.error }));
    return make("figure", { className: "answer" }, make("div", { className: "frame" }, make("span", { className: "quiet small", textContent: "no map" })), caption);
  }
  const share = result.probability === null ? "" : `, probability ${percent(result.probability)}`;
  const image = make("img", { alt: `Map of ${result.method} for ${result.class}` });
  const bar = make("div", { className: "bar", ariaHidden: "true" });
  const ends = make("div", { className: "ends" });
  const wrong = make("p", { className: "error", hidden: true });
  const downloads = make("ul");
  const menu = make("details", { className: "menu" }, make("summary", { textContent: "Download" }), downloads);
  caption.append(wrong, make("p", { className: "small" }, make("strong", { textContent: result.class }), `, score ${result.score.toFixed(2)}${share}`),
    make("p", { className: "quiet" }, make("code", { textContent: result.recipe })));
  const figure = make("figure", { className: "answer" }, make("div", { className: "frame" }, image), bar, ends, caption, menu);
  const base = `/jobs/${job}/${place}`;
  figure.redraw = async () => {
    const query = drawing();
    image.src = `${base}?${query}`;
    downloads.replaceChildren(...[
      [`${base}?${drawing({ at: "input", download: "" })}`, "Picture, as the model sees it (.png)"],
      [`${base}?${drawing({ at: "original", download: "" })}`, "Picture, at its own size (.png)"],
      [`${base}/values.npz`, "Values with names, for NumPy (.npz)"],
      [`${base}/values.npy`, "Values alone (.npy)"],
      [`${base}/values.safetensors`, "The whole explanation, for cnnviz (.safetensors)"],
    ].map(([href, textContent]) => make("li", {}, make("a", { href, textContent, download: "" }))));
    try {
      const told = await ask(`${base}/scale?${query}`);
      drawScale(bar, ends, told.scale, result);
    } catch (error) {
      bar.hidden = true;
      wrong.textContent = error.message;
    }
  };
  image.addEventListener("load", () => { image.hidden = false; wrong.hidden = true; });
  image.addEventListener("error", () => { image.hidden = true; wrong.hidden = !wrong.textContent; });
  figure.redraw();
  return figure;
}

function drawScale(bar, ends, scale, result) {
  bar.hidden = scale === null || scale.blank;
  if (bar.hidden) {
    ends.replaceChildren(make("span", { textContent: `values from ${number(result.low)} to ${number(result.high)}` }));
    return;
  }
  bar.style.background = `linear-gradient(to right, ${scale.colors.join(", ")})`;
  ends.replaceChildren(
    make("span", { textContent: number(scale.low) }),
    // values at the picture itself are slopes, which are neither for nor against
    make("span", { textContent: result.fine ? "" : scale.low < 0 ? "against and for" : "speaks for the class" }),
    make("span", { textContent: number(scale.high) }),
  );
}

async function drawPython() {
  at("python").hidden = !state.shown || state.results.every((result) => result.error);
  if (at("python").hidden) return;
  const path = `/jobs/${state.shown.job}/python?${drawing()}`;
  at("python-file").href = `${path}&download=`;
  at("copied").textContent = "";
  try {
    at("python-text").textContent = await ask(path);
  } catch (error) {
    at("python-text").textContent = error.message;
  }
}

// ------------------------------------------------------------------ events

function listen() {
  at("choose").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => {
    if (at("file").files.length) send(at("file").files[0]);
    at("file").value = "";
  });
  for (const id of ["example", "empty-example"]) at(id).addEventListener("click", () => keep(() => ask("/example", {})));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) send(event.clipboardData.files[0]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !at("explain").disabled) explain();
    if (event.key === "Escape" && state.job) cancel();
  });
  at("model").addEventListener("change", async () => {
    await stop();
    state.turn++;
    drawModel();
    await predict();
    changed();
  });
  at("layer").addEventListener("change", changed);
  at("find-class").addEventListener("input", findClasses);
  at("find-method").addEventListener("input", findMethods);
  at("formula").addEventListener("input", typed);
  at("formula-sample").addEventListener("click", (event) => {
    at("formula").value = event.target.textContent;
    at("formula").focus();
    typed();
  });
  at("explain").addEventListener("click", explain);
  at("cancel").addEventListener("click", cancel);
  at("renderer").addEventListener("change", () => { drawSettings(); redraw(); });
  at("at").addEventListener("change", redraw);
  at("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(at("python-text").textContent);
      at("copied").textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(at("python-text"));
      at("copied").textContent = "Selected; copy it with the keyboard.";
    }
  });
}

function cancel() {
  if (state.job) ask(`/jobs/${state.job}/cancel`, {}).catch((error) => status(error.message));
  status("Cancelling, once the pass that runs is done.");
}

async function start() {
  listen();
  try {
    state.choices = await ask("/choices");
  } catch (error) {
    status(error.message);
    return;
  }
  state.choices.models.forEach(({ name }, value) => at("model").append(make("option", { value, textContent: name })));
  const own = make("option", { value: "", textContent: "each method's own" });
  at("renderer").append(own, ...state.choices.renderers.map(({ name }) => make("option", { value: name, textContent: name })));
  drawModel();
  drawMethods();
  drawClasses();
  drawSettings();
  refresh();
}

const started = start();

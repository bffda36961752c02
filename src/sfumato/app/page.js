"use strict";
// The page asks /about what there is, posts a request to /images and draws the events that come back, one JSON a line.

const COLUMNS = 8;  // tiles in a row of a frame, as the server lays them
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, facts = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), facts);
  node.append(...children);
  return node;
};
let about, picture, told, ways = [], panels = [], running = null, chosen = null;

// ---- controls

class Way {
  constructor(number) {
    this.number = number;
    this.node = $("#way").content.firstElementChild.cloneNode(true);
    this.node.dataset.way = number;
    this.fields = Object.fromEntries($$("[name]", this.node).map(node => [node.name, node]));
    this.own = {sampler: {}, grid: {}};  // options set by hand, by axis
    const {run, sampler, grid, steps, guidance} = this.fields;
    run.append(...about.runs.map((each, i) => make("option", {value: i, textContent: each.name})));
    $(".run", this.node).hidden = about.runs.length < 2;
    run.value = Math.min(number, about.runs.length - 1);
    sampler.append(...about.samplers.map(each => make("option", {value: each.name, textContent: each.name})));
    run.onchange = () => { this.restore(); arrange(); };
    sampler.onchange = () => this.changed("sampler", {});
    grid.onchange = () => this.changed("grid", {});
    this.pair("steps"); this.pair("guidance");
    steps.max = about.limits.steps;
    guidance.required = true;
    this.restore();
  }
  get run() { return about.runs[this.fields.run.value]; }
  pair(name) {
    const number = this.fields[name], range = this.fields[name + "-range"];
    range.oninput = () => { number.value = range.value; };
    number.oninput = () => { range.value = number.value; };
  }
  set(name, value) { this.fields[name].value = value; this.fields[name + "-range"].value = value; }
  restore(run = this.run, sample = run, use = run.use) {  // what the run's own recipe says, unless told otherwise
    const {fields} = this;
    fields.use.replaceChildren(...run.uses.map(each => make("option", {value: each, textContent: each})));
    fields.use.value = use;
    const named = names => names.map(name => make("option", {value: name, textContent: name}));
    fields.grid.replaceChildren(...named(about.grids.map(each => each.name)), ...(run.computed.length
      ? [make("optgroup", {label: "computed for this run"}, ...named(run.computed))] : []));
    for (const option of fields.grid.options) {
      option.disabled = Boolean(run.grids[option.value]);
      option.title = run.grids[option.value] ?? "";
    }
    fields.sampler.value = sample.sampler.name;
    const {called} = sample.grid.options;
    fields.grid.value = run.computed.includes(called) ? called : sample.grid.name;
    this.set("guidance", sample.guidance);
    fields.guidance.disabled = fields["guidance-range"].disabled = run.unguided !== null;
    const why = $(".why", this.node);
    why.hidden = run.unguided === null;
    why.textContent = run.unguided ?? "";
    this.changed("sampler", sample.sampler.options);
    this.changed("grid", sample.grid.options);
  }
  changed(axis, options) {
    const {fields} = this, entry = about[axis + "s"].find(each => each.name === fields[axis].value) ?? {controls: []};
    this.own[axis] = {};
    const controls = entry.controls.filter(each => axis !== "grid" || each.name !== "steps");
    $(`[data-axis=${axis}]`, this.node).replaceChildren(...controls.map(each => control(this.own[axis], each, options[each.name])));
    if (axis === "sampler") $("[data-about=sampler]", this.node).textContent = entry.about;
    else {
      const steps = entry.controls.find(each => each.name === "steps");
      $(".steps", this.node).hidden = !steps;
      fields.steps.required = Boolean(steps);
      if (steps) this.set("steps", options.steps ?? (steps.default || 20));
    }
  }
  request() {
    const {fields} = this, grid = {...this.own.grid};
    if (fields.steps.required) grid.steps = fields.steps.valueAsNumber;
    return {run: Number(fields.run.value), use: fields.use.value, guidance: fields.guidance.valueAsNumber,
      sampler: fields.sampler.value, sampler_options: this.own.sampler, grid: fields.grid.value, grid_options: grid};
  }
  get title() {
    const {fields} = this, {run} = this, parts = [fields.sampler.value, fields.grid.value];
    if (fields.steps.required) parts[1] += ` ${fields.steps.value}`;
    if (fields.guidance.valueAsNumber !== 1) parts.push(`guidance ${fields.guidance.value}`);
    if (fields.use.value !== run.use) parts.push(fields.use.value);
    return parts.join(" · ");
  }
}

function control(own, spec, value) {  // of one option; what is set by hand goes into `own`
  const set = read => { const given = read(); if (given === null) delete own[spec.name]; else own[spec.name] = given; };
  let input, read;
  if (spec.kind === "switch") {
    input = make("input", {type: "checkbox", checked: value ?? spec.default ?? false});
    read = () => input.checked;
  } else if (spec.kind === "choice") {
    input = make("select", {}, ...spec.choices.map(each => make("option", {value: each, textContent: each})));
    input.value = value ?? spec.default;
    read = () => spec.choices[input.selectedIndex] ?? null;
  } else if (spec.kind === "text") {
    input = make("input", {type: "text", value: value ?? spec.default ?? "", maxLength: 100});
    read = () => input.value || null;
  } else {
    const shown = typeof value === "boolean" ? Number(value) : value ?? spec.default ?? "";
    input = make("input", {type: "number", step: spec.kind === "integer" ? "1" : "any", value: shown,
      placeholder: spec.optional ? "none" : ""});
    read = () => input.value === "" ? null : input.valueAsNumber;
  }
  if (value !== undefined && value !== null) own[spec.name] = typeof value === "boolean" && spec.kind === "number" ? Number(value) : value;
  input.onchange = () => set(read);
  input.dataset.option = spec.name;
  return make("label", {className: "field " + spec.kind, title: spec.about},
    make("span", {className: "name", textContent: spec.name.replaceAll("_", " ")}), input);
}

const mode = () => $("[name=mode]:checked").value;
const changing = () => mode() === "restore" || mode() === "edit";

function arrange() {  // the form for the chosen mode
  const now = mode();
  $("#ways").replaceChildren(...ways.slice(0, now === "compare" ? 2 : 1).map(way => way.node));
  $("legend", ways[0].node).textContent = now === "compare" ? "A" : "How";
  $("legend", ways[1].node).textContent = "B";
  $("#to-field").hidden = now !== "interpolate";
  $("#to").disabled = now !== "interpolate";
  $("#seed-name").textContent = now === "interpolate" ? "From seed" : "First seed";
  const changes = changing(), each = $("[name=label][value=each]");
  $("#change").hidden = !changes;
  if (changes) { picture.fit(); picture.arrange(); }
  told.fit();
  if (each) {
    each.parentNode.hidden = changes;
    if (changes && each.checked) $("[name=label][value=none]").checked = true;
  }
  const count = $("#count");
  count.min = now === "interpolate" ? 2 : 1;
  $("#count-shown").textContent = count.value;
}

function offerClasses() {
  const {classes} = about.runs[0];
  $("#class-field").hidden = !classes.length;
  const entries = [["each", "each in turn"], ...classes.map((name, i) => [String(i), name]), ["none", "no class"]];
  $("#classes").replaceChildren(...entries.map(([value, name]) => make("label", {},
    make("input", {type: "radio", name: "label", value, checked: value === "each"}), make("span", {textContent: name}))));
}

function request() {
  const now = mode(), label = $("[name=label]:checked")?.value ?? "each";
  return {seed: $("#seed").valueAsNumber, count: picture.encodes ? 1 : $("#count").valueAsNumber,
    to: now === "interpolate" ? $("#to").valueAsNumber : null,
    label: /^\d+$/.test(label) ? Number(label) : label, ...(changing() ? {[now]: picture.request()} : told.request()),
    ways: ways.slice(0, now === "compare" ? 2 : 1).map(way => way.request())};
}

// ---- panels

class Panel {
  constructor(way, asked, shape) {
    this.node = $("#panel").content.firstElementChild.cloneNode(true);
    [, this.height, this.width] = shape;
    this.restores = Boolean(asked.restore);
    this.classes = way.run.classes;
    this.frames = []; this.images = []; this.count = asked.count; this.view = "x0"; this.follow = true;
    this.named = (asked.ways.length > 1 ? "AB"[way.number] + " · " : "") + (about.runs.length > 1 ? `${way.run.name}: ` : "");
    $("h2", this.node).textContent = this.named + way.title;
    const columns = asked.to !== null ? Math.min(asked.count, 9)
      : asked.count <= 4 ? asked.count : Math.min(COLUMNS, Math.ceil(Math.sqrt(asked.count)));
    const grid = $(".images", this.node);
    grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    grid.style.maxWidth = `${Math.min(60, columns * (asked.ways.length > 1 ? 7.5 : 11))}rem`;
    this.cells = Array.from({length: asked.count}, (_, i) => {
      const canvas = make("canvas", {width: this.width, height: this.height});
      const cell = make("button", {type: "button", disabled: true}, canvas, make("span"));
      cell.onclick = () => this.enlarge(i);
      grid.append(cell);
      return cell;
    });
    this.scrub = $(".scrub", this.node);
    this.scrub.oninput = () => { this.follow = this.scrub.valueAsNumber === this.frames.length - 1; this.draw(); };
    const name = `view-${way.number}`;
    $$("[type=radio]", this.node).forEach(radio => { radio.name = name; radio.onchange = () => { this.view = radio.value; this.draw(); }; });
    this.mixed = asked.to === null ? null : $(".mixed", this.node);
    if (this.mixed) {
      this.mixed.hidden = false;
      $(".from", this.mixed).textContent = asked.seed;
      $(".onto", this.mixed).textContent = asked.to;
      Object.assign($("canvas", this.mixed), {width: this.width, height: this.height});
      const range = $("input", this.mixed);
      range.max = asked.count - 1;
      range.value = Math.floor((asked.count - 1) / 2);
      range.oninput = () => this.draw();
    }
  }
  async frame(event) {
    const [x0, x] = await Promise.all(["x0", "x"].map(async kind => {
      const image = new Image();
      image.src = "data:image/png;base64," + event[kind];
      await image.decode();
      return image;
    }));
    this.frames.push({...event, x0, x});
    $("progress", this.node).value = event.step / event.steps;
    this.scrub.disabled = this.frames.length < 2;
    this.scrub.max = this.frames.length - 1;
    if (this.follow) this.scrub.value = this.frames.length - 1;
    this.draw();
  }
  draw() {
    const frame = this.frames[this.scrub.valueAsNumber];
    if (!frame) return;
    const {width: w, height: h} = this, image = frame[this.view];
    const paint = (canvas, i) => canvas.getContext("2d").drawImage(image, (i % COLUMNS) * w, Math.floor(i / COLUMNS) * h, w, h, 0, 0, w, h);
    this.cells.forEach((cell, i) => paint(cell.firstChild, i));
    const level = frame.nsr === null ? "" : frame.nsr === 0 ? " · clean" : ` · σ/α ${frame.nsr.toPrecision(3)}`;
    $(".step", this.node).textContent = `${frame.step} of ${frame.steps}${level}`;
    if (this.mixed) {
      const at = $("input", this.mixed).valueAsNumber;
      paint($("canvas", this.mixed), at);
      $(".weight", this.mixed).textContent = `λ = ${(at / (this.count - 1)).toFixed(2)}`;
      this.cells.forEach((cell, i) => cell.classList.toggle("at", i === at));
    }
  }
  done(event) {
    this.images = event.images;
    $("progress", this.node).value = 1;
    const rate = this.count / event.seconds;
    const text = `${event.nfe % 1 ? event.nfe.toFixed(1) : event.nfe} network calls${event.vjps ? ` and ${event.vjps} gradients` : ""} per image · ${event.seconds.toFixed(2)} s · ${rate.toFixed(rate < 10 ? 1 : 0)} images/s`;
    const unseen = event.unseen.map(line => line + " ").join("");
    $(".result", this.node).textContent = unseen + (event.bad ? `${event.bad} of ${this.count} images hold NaN or infinity and are left out. ${text}` : text);
    $(".count", this.node).textContent = `${this.count} image${this.count > 1 ? "s" : ""}`;
    const {classes} = this;
    this.cells.forEach((cell, i) => {
      const image = event.images[i];
      cell.disabled = image === null;
      if (image === null) return;
      const kind = image.label === null ? "" : image.label < 0 ? ", no class" : `, ${classes[image.label] ?? image.label}`;
      image.name = this.restores ? `sample ${i + 1}${kind}` : image.to === undefined ? `seed ${image.seed}${kind}` : `seed ${image.seed} → ${image.to}, λ = ${image.mix.toFixed(2)}${kind}`;
      cell.lastChild.textContent = cell.ariaLabel = cell.title = image.name;
    });
    $("h2", this.node).textContent = this.named + event.made;
    $(".beside-images", this.node).append(...event.beside.map(({name, png}) => {
      const href = "data:image/png;base64," + png;
      return make("figure", {}, make("img", {src: href, alt: name}),
        make("figcaption", {}, make("a", {href, download: `${name.replace(/^\d+% /, "")}.png`, textContent: name, title: `Keep ${name}.png`})));
    }));
    $(".after", this.node).hidden = false;
    const sheet = $(".sheet", this.node), first = event.images[0];
    sheet.hidden = event.sheet === null;
    if (event.sheet !== null) {
      sheet.href = "data:image/png;base64," + event.sheet;
      sheet.download = `sheet-seed-${first.seed}-${this.count}.png`;
    }
    $(".command", this.node).textContent = event.command;
    $(".copy", this.node).onclick = async () => {
      try { await navigator.clipboard.writeText(event.command); say("The command is copied."); }
      catch { getSelection().selectAllChildren($(".command", this.node)); say("The command is selected; copy it with Ctrl-C."); }
    };
  }
  enlarge(i) {
    const image = this.images[i];
    if (!image) return;
    chosen = [this, i];
    const large = $("#large-image");
    Object.assign(large, {width: this.width, height: this.height});
    large.getContext("2d").drawImage(this.cells[i].firstChild, 0, 0);
    $("#large-name").textContent = image.name;
    const save = $("#large-save"), mix = image.to === undefined ? "" : `-to-${image.to}-${image.mix.toFixed(3)}`;
    save.href = "data:image/png;base64," + image.png;
    save.download = `seed-${String(image.seed).padStart(9, "0")}${mix}.png`;
    if (!$("#large").open) $("#large").showModal();
  }
}

function compare() {  // how far apart two panels are, in levels
  const [a, b] = panels.map(panel => panel.cells.flatMap(cell => {
    const {data} = cell.firstChild.getContext("2d").getImageData(0, 0, panel.width, panel.height);
    return [...data].filter((_, i) => i % 4 < 3);
  }));
  const node = $("#difference");
  node.hidden = a.length !== b.length;
  if (node.hidden) return;
  const mean = a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;
  node.textContent = mean === 0 ? "A and B are the same, pixel for pixel."
    : `A and B differ by ${mean.toFixed(2)} of 255 levels on average, from the same noise.`;
}

// ---- the conversation with the server

const say = text => { $("#status").textContent = text; $("#status").className = "muted"; };
function complain(text) { $("#status").textContent = text; $("#status").className = "error"; }

async function generate(event) {
  event.preventDefault();
  if (running) return;
  let asked;
  try { asked = request(); }
  catch (error) { return complain(error.message); }
  const active = ways.slice(0, asked.ways.length);
  running = new AbortController();
  $("#go").disabled = true; $("#stop").disabled = false; $("#difference").hidden = true;
  say("Asking …");
  try {
    const answer = await fetch(changing() || asked.like_image ? "changes" : "images", {method: "POST", body: JSON.stringify(asked), signal: running.signal});
    if (!answer.ok) throw new Error((await answer.json()).message);
    panels = active.map(way => new Panel(way, asked, way.run.shape));
    $("#panels").replaceChildren(...panels.map(panel => panel.node));
    $("#panels").classList.toggle("two", panels.length > 1);
    if (matchMedia("(max-width: 60rem)").matches) $("#status").scrollIntoView();
    let failed = false;
    for await (const line of lines(answer.body)) {
      const fact = JSON.parse(line);
      if (fact.event === "waiting") say(fact.place ? `Waiting: ${fact.place} before you.` : "Starting …");
      else if (fact.event === "frame") { say("Denoising …"); await panels[fact.way].frame(fact); }
      else if (fact.event === "done") panels[fact.way].done(fact);
      else if (fact.event === "error") { failed = true; complain(fact.message); }
    }
    if (!failed) {
      say("Done. Click an image to see it large and to keep it.");
      if (panels.length > 1) compare();
    }
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else complain(error instanceof TypeError ? "The playground does not answer. Is it still running?" : error.message);
  } finally {
    running = null;
    $("#go").disabled = false; $("#stop").disabled = true;
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}

async function take(file) {  // the settings of a picture that was made here
  if (!file) return;
  try {
    const answer = await fetch("settings", {method: "POST", body: file});
    const made = await answer.json();
    if (!answer.ok) throw new Error(made.message);
    const between = made.to !== undefined, seeds = made.seeds ?? [made.seed], labels = made.labels ?? [made.label ?? null];
    const past = ["restore", "edit"].find(each => made[each]);
    $(`[name=mode][value=${past ?? (between ? "interpolate" : "sample")}]`).checked = true;
    $("#seed").value = seeds[0] % 2 ** 32;  // the samples of one picture are that far apart
    if (between) $("#to").value = made.to;
    $("#count").value = between ? Math.max(9, seeds.length) : Math.max(seeds.length, 1 + Math.floor(seeds[0] / 2 ** 32));
    const kind = labels[0] === null ? "none" : new Set(labels).size > 1 ? "each" : String(labels[0]);
    const radio = $(`[name=label][value="${kind}"]`);
    if (radio) radio.checked = true;
    ways[0].fields.run.value = made.run;
    ways[0].restore(ways[0].run, made.sample, made.use);
    arrange();
    if (past) await picture.take(made);
    else await told.take(made);
    say(`Settings taken from ${file.name}. Press Generate to make it again.`);
  } catch (error) { complain(error.message); }
}

function droppable(node, use) {
  node.ondragover = event => { event.preventDefault(); node.classList.add("over"); };
  node.ondragleave = () => node.classList.remove("over");
  node.ondrop = event => { event.preventDefault(); node.classList.remove("over"); use(event.dataTransfer.files[0]); };
}

async function start() {
  try { about = await (await fetch("about")).json(); }
  catch { return complain("The playground does not answer. Is it still running?"); }
  const facts = run => `${run.name}${run.recipe === run.name ? "" : ` · ${run.recipe}`} · ${run.shape.join("×")} · ${run.seen.toLocaleString("en")} images seen`;
  $("#facts").textContent = about.runs.map(facts).join("   |   ");
  document.title = `${about.runs.map(run => run.name).join(", ")} · sfumato playground`;
  $("#count").max = about.limits.images;
  $("#count").value = Math.min(16, about.limits.images);
  offerClasses();
  ways.push(new Way(0), new Way(1));
  picture = new Picture();
  told = new Told();
  arrange();
  if (about.runs.length > 1) $("[name=mode][value=compare]").checked = true;
  arrange();
  $$("[name=mode]").forEach(radio => { radio.onchange = () => {
    const most = {interpolate: 9, restore: 8, edit: 8}[mode()] ?? about.limits.images;
    if ($("#count").valueAsNumber > most) $("#count").value = most;
    arrange();
  }; });
  $("#count").oninput = arrange;
  $("#dice").onclick = () => { $("#seed").value = Math.floor(Math.random() * 1e6); if (mode() === "interpolate") $("#to").value = Math.floor(Math.random() * 1e6); };
  $("#form").onsubmit = generate;
  $("#stop").onclick = () => running?.abort();
  $("#file").onchange = event => { take(event.target.files[0]); event.target.value = ""; };
  droppable($("#drop"), take);
  const step = by => { const [panel, i] = chosen; panel.enlarge((i + by + panel.count) % panel.count); };
  $("#large-before").onclick = () => step(-1);
  $("#large-after").onclick = () => step(1);
  $("#large").onkeydown = event => { if (event.key === "ArrowLeft") step(-1); if (event.key === "ArrowRight") step(1); };
  $("#go").disabled = false;
}

start();

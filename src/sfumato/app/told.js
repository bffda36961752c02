"use strict";
// What a model is told beside a class: a control for each attribute, and a well for an image. Both follow the run.

class Told {
  constructor() {
    this.image = null;
    $("#told-take").onclick = () => this.held();
    $("#told-file").onchange = event => { this.choose(event.target.files[0]); event.target.value = ""; };
    $("#told-none").onclick = () => this.clear();
    droppable($("#told-drop"), file => this.choose(file));
  }
  fit() {  // what the chosen run is told
    const {run} = ways[0];
    $("#told").hidden = changing() || !(run.attributes.length || run.beside.length);
    if (this.run === run) return;
    this.run = run;
    this.all = run.always.includes("vector");  // told of every image of training, so all of them or none
    this.controls = run.attributes.map(each => each.kind === "switch" ? this.choice(each) : this.slider(each));
    $("#attributes").replaceChildren(...this.controls.map(each => each.node));
    $("#attributes-about").textContent = this.all ? "Each image gets those of a test image, unless all are given."
      : "What is not ticked is left open.";
    $("#attributes-about").hidden = !run.attributes.length;
    $("#told-image").hidden = !run.beside.length;
    $("#told-name").textContent = `Image beside (${run.condition})`;
    if (run.beside.length) Object.assign($("#told-canvas"), {width: run.beside[2], height: run.beside[1]});
    this.clear();
  }
  changed(control) {
    if (!this.all) return;
    const open = control.get() === null;
    this.controls.filter(each => (each.get() === null) !== open).forEach(each => each.set(open ? null : each.usual));
  }
  slider({name, mean, least, greatest, step}) {
    const digits = Math.max(0, -Math.round(Math.log10(step))), usual = Number(mean.toFixed(digits));
    const tick = make("input", {type: "checkbox"}), facts = {step, value: usual, ariaLabel: name};
    const range = make("input", {type: "range", min: least - (least % step), max: greatest, ...facts});
    range.value = usual;
    const number = make("input", {type: "number", ...facts, step: "any"});
    const get = () => tick.checked ? number.valueAsNumber : null;
    const set = value => { tick.checked = value !== null; if (value !== null) number.value = range.value = value; };
    const control = {name, usual, get, set};
    const told = from => { tick.checked = true; if (from === range) number.value = range.value; else range.value = number.value; this.changed(control); };
    range.oninput = () => told(range);
    number.oninput = () => told(number);
    tick.onchange = () => this.changed(control);
    tick.dataset.attribute = range.dataset.attribute = number.dataset.attribute = name;
    control.node = make("div", {className: "field"},
      make("span", {className: "name"}, make("label", {className: "tick"}, tick, ` ${name}`),
        make("span", {textContent: `${least.toFixed(digits)} to ${greatest.toFixed(digits)}`, title: "What training saw"})),
      make("span", {className: "beside"}, range, number));
    return control;
  }
  choice({name, mean}) {
    const chips = ["open", "no", "yes"].map((text, i) => make("input", {type: "radio", name: `where-${name}`, value: i - 1, checked: i === 0}));
    const get = () => { const value = Number(chips.find(each => each.checked).value); return value < 0 ? null : value; };
    const set = value => { chips[value === null ? 0 : value + 1].checked = true; };
    const control = {name, usual: Math.round(mean), get, set};
    chips.forEach(each => { each.onchange = () => this.changed(control); each.dataset.attribute = name; });
    const labels = chips.map((each, i) => make("label", {}, each, make("span", {textContent: ["open", "no", "yes"][i]})));
    const group = make("div", {className: "chips", ariaLabel: name}, ...labels);
    group.setAttribute("role", "radiogroup");
    control.node = make("div", {className: "field"}, make("span", {className: "name", textContent: name}), group);
    return control;
  }
  // ---- the image

  clear() {
    this.image = null;
    $("#told-canvas").hidden = $("#told-none").hidden = true;
    $("#told-state").textContent = "Each image is told that of another test image.";
  }
  async load(source) {
    const [canvas, {width, height}] = await brought(source, this.run.beside);
    this.image = canvas;
    const shown = $("#told-canvas");
    shown.hidden = $("#told-none").hidden = false;
    shown.getContext("2d").drawImage(canvas, 0, 0);
    const size = `${canvas.width}×${canvas.height}`;
    $("#told-state").textContent = width === canvas.width && height === canvas.height ? `All images are told this one, ${size}.`
      : `All images are told this one, brought from ${width}×${height} to ${size}.`;
  }
  async choose(file) {
    if (!file) return;
    try { await this.load(await contentOf(file)); }
    catch { complain(`${file.name} cannot be read as a picture.`); }
  }
  async held() {
    try { await this.load(await testImage($("#told-held").value, "told")); }
    catch (error) { complain(error.message); }
  }
  // ---- the request

  request() {
    const named = this.controls.map(each => [each.name, each.get()]).filter(([, value]) => value !== null);
    return {where: Object.fromEntries(named), like_image: this.image && bare(this.image)};
  }
  async take(made) {  // what a picture that was made here carries
    this.fit();
    this.controls.forEach(each => each.set(made.where[each.name] === undefined ? null : Number(made.where[each.name])));
    if (made.like_image) await this.load("data:image/png;base64," + made.like_image);
    else this.clear();
  }
}

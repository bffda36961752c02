"use strict";
// A person's picture, the mask painted on it, and what is to become of it: the field "restore" or "edit" of a request.

class Picture {
  constructor() {
    this.own = {task: {}, method: {}};  // options set by hand, by axis
    this.canvas = $("#paint");
    this.at = [0, 0];
    for (const axis of ["task", "method"]) {
      const parts = about[axis + "s"], select = $(`#${axis}`);
      select.append(...parts.map(each => make("option", {value: each.name, textContent: each.name})));
      select.value = axis === "task" ? "inpaint" : this.run.methods.inpaint;
      select.onchange = () => {
        if (axis === "method") this.chosen = true;
        this.changed(axis, {});
        if (axis === "task" && !this.chosen) { $("#method").value = this.run.methods[select.value]; this.changed("method", {}); }
      };
      this.changed(axis, {});
    }
    $("#strength").oninput = () => { $("#strength-shown").textContent = $("#strength").value; };
    $("#encode-as").onchange = () => this.arrange();
    $("#take").onclick = () => this.held();
    $("#invert").onclick = () => this.invert();
    $("#picture-file").onchange = event => { this.choose(event.target.files[0]); event.target.value = ""; };
    droppable($("#picture-drop"), file => this.choose(file));
    $("#mask-half").onclick = () => this.fill((x, y) => y >= Math.floor(this.height / 2));
    $("#mask-box").onclick = () => this.fill((x, y) => Math.abs(2 * x + 1 - this.width) <= this.width / 2 && Math.abs(2 * y + 1 - this.height) <= this.height / 2);
    $("#mask-random").onclick = () => this.fill(() => Math.random() < 0.3);
    $("#mask-none").onclick = () => this.fill(() => false);
    $("#brush").oninput = () => this.draw();
    this.canvas.onpointerdown = event => { this.canvas.setPointerCapture(event.pointerId); this.last = this.place(event); this.stroke(this.last); };
    this.canvas.onpointermove = event => { if (this.last) this.stroke(this.place(event)); };
    this.canvas.onpointerup = this.canvas.onpointercancel = () => { this.last = null; };
    this.canvas.onkeydown = event => this.key(event);
    this.canvas.onfocus = this.canvas.onblur = () => this.draw();
  }
  get run() { return about.runs[ways[0].fields.run.value]; }
  get encodes() { return mode() === "edit" && this.run.classes.length > 0 && $("#encode-as").value !== ""; }
  fit() {  // an empty picture of the model's size, unless there is one
    const [, height, width] = this.run.shape;
    if (this.offered !== this.run.classes) {
      this.offered = this.run.classes;
      const entries = [["", "noise it instead"], ...this.offered.map(name => [name, name])];
      $("#encode-as").replaceChildren(...entries.map(([value, textContent]) => make("option", {value, textContent})));
    }
    if (this.width === width && this.height === height) return;
    Object.assign(this, {width, height, image: null, mask: new Uint8Array(width * height), at: [width >> 1, height >> 1]});
    Object.assign(this.canvas, {width, height});
    $("#brush").max = Math.max(2, height >> 1);
    $("#brush").value = Math.max(1, height >> 3);
    this.draw();
  }
  changed(axis, options) {
    const entry = about[axis + "s"].find(each => each.name === $(`#${axis}`).value);
    this.own[axis] = {};
    this.masked = axis === "task" ? entry.controls.some(each => each.name === "mask") : this.masked;
    const controls = entry.controls.filter(each => each.name !== "mask");
    $(`[data-change=${axis}]`).replaceChildren(...controls.map(each => control(this.own[axis], each, options[each.name])));
    $(`[data-about=${axis}]`).textContent = entry.about;
    this.arrange();
  }
  arrange() {
    const restores = mode() === "restore";
    $$("[data-only]").forEach(node => { node.hidden = node.dataset.only !== mode(); });
    $("#mask-tools").hidden = restores && !this.masked;
    $("#encode-field").hidden = restores || !this.run.classes.length;
    $("#strength-field").hidden = restores || this.encodes;
    if (this.image) this.draw();
  }
  // ---- the picture

  async load(source, wanted = null) {  // an image, cropped to the model's proportions and brought to its size
    this.fit();
    const {width: w, height: h} = this, [canvas, image] = await brought(source, this.run.shape);
    Object.assign(this, {image: canvas, whole: image});
    this.mask.fill(0);
    if (wanted) await this.wear(wanted);
    this.draw();
    say(image.width === w && image.height === h ? "The picture is taken." : `The picture of ${image.width}×${image.height} is brought to ${w}×${h}.`);
  }
  invert() {  // such as ink on paper for a model of light strokes on black
    if (!this.image) return complain("There is no picture yet. Drop one, or take a test image.");
    for (const name of ["image", "whole"]) {
      const {width, height} = this[name], canvas = make("canvas", {width, height}), pen = canvas.getContext("2d");
      pen.drawImage(this[name], 0, 0);
      pen.globalCompositeOperation = "difference";
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, width, height);
      this[name] = canvas;
    }
    this.draw();
    say("Black and white are swapped.");
  }
  async wear(source) {  // a mask that came with a picture
    const image = new Image();
    image.src = source;
    await image.decode();
    const pen = make("canvas", {width: this.width, height: this.height}).getContext("2d");
    pen.drawImage(image, 0, 0);
    pen.getImageData(0, 0, this.width, this.height).data.forEach((value, i) => { if (i % 4 === 0) this.mask[i >> 2] = Number(value > 127); });
  }
  async choose(file) {
    if (!file) return;
    try { await this.load(await contentOf(file)); }
    catch { complain(`${file.name} cannot be read as a picture.`); }
  }
  async held() {
    try { await this.load(await testImage($("#held").value, "image")); }
    catch (error) { complain(error.message); }
  }
  // ---- the mask

  fill(chosen) {
    this.fit();
    this.mask.forEach((_, i) => { this.mask[i] = Number(chosen(i % this.width, Math.floor(i / this.width))); });
    this.draw();
  }
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.x) / box.width * this.width, (event.clientY - box.y) / box.height * this.height].map(Math.floor);
  }
  stroke(to) {  // a line of the brush from the last place
    const [x, y] = this.last, steps = Math.max(1, Math.abs(to[0] - x), Math.abs(to[1] - y));
    for (let i = 0; i <= steps; i++) this.dab(Math.round(x + (to[0] - x) * i / steps), Math.round(y + (to[1] - y) * i / steps));
    this.last = this.at = to;
    this.draw();
  }
  dab(x, y, value = Number(!$("#erase").checked)) {
    const size = $("#brush").valueAsNumber, left = x - (size >> 1), top = y - (size >> 1);
    for (let row = Math.max(0, top); row < Math.min(this.height, top + size); row++)
      for (let column = Math.max(0, left); column < Math.min(this.width, left + size); column++) this.mask[row * this.width + column] = value;
  }
  key(event) {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (by) this.at = [Math.min(this.width - 1, Math.max(0, this.at[0] + by[0])), Math.min(this.height - 1, Math.max(0, this.at[1] + by[1]))];
    else if (event.key === " ") this.dab(...this.at);
    else if (event.key === "Backspace") this.dab(...this.at, 0);
    else return;
    event.preventDefault();
    this.draw();
  }
  draw() {
    const pen = this.canvas.getContext("2d"), {width: w, height: h} = this;
    pen.clearRect(0, 0, w, h);
    if (this.image) pen.drawImage(this.image, 0, 0);
    pen.fillStyle = "rgb(230 90 0 / .72)";
    if (mode() === "edit" || this.masked) this.mask.forEach((value, i) => { if (value) pen.fillRect(i % w, Math.floor(i / w), 1, 1); });
    if (document.activeElement === this.canvas) {
      const size = $("#brush").valueAsNumber;
      pen.fillStyle = "rgb(0 120 255 / .55)";
      pen.fillRect(this.at[0] - (size >> 1), this.at[1] - (size >> 1), size, size);
    }
    const share = this.mask.reduce((sum, value) => sum + value, 0) / this.mask.length;
    $("#mask-share").textContent = share || mode() === "restore" ? `${Math.round(100 * share)}% ${mode() === "edit" ? "may change" : "hidden"}` : "all may change";
  }
  // ---- the request

  png() {
    const canvas = make("canvas", {width: this.width, height: this.height}), pen = canvas.getContext("2d"), image = pen.createImageData(this.width, this.height);
    this.mask.forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
    pen.putImageData(image, 0, 0);
    return bare(canvas);
  }
  request() {
    if (!this.image) throw new Error("There is no picture yet. Drop one, or take a test image.");
    const picture = bare(this.image), damaged = $("#damaged").checked;
    if (mode() === "edit") return {picture, strength: $("#strength").valueAsNumber, mask: this.mask.some(Boolean) ? this.png() : null,
      encode_as: this.encodes ? $("#encode-as").value : null};
    return {picture: damaged && !this.masked ? this.original() : picture, mask: this.masked ? this.png() : null,
      task: $("#task").value, task_options: this.own.task, method: $("#method").value, method_options: this.own.method,
      damaged, resample: $("#resample").valueAsNumber};
  }
  original() {  // a damaged picture at its own size, which may be that of a measurement
    const {width, height} = this.whole, canvas = make("canvas", {width, height});
    canvas.getContext("2d").drawImage(this.whole, 0, 0);
    return bare(canvas);
  }
  async take(made) {  // what a picture that was made here carries
    const data = text => text && "data:image/png;base64," + text, asked = made.restore ?? made.edit;
    if (made.restore) {
      for (const axis of ["task", "method"]) { $(`#${axis}`).value = asked[axis]; this.changed(axis, asked[axis + "_options"]); }
      $("#damaged").checked = asked.damaged ?? false;
      $("#resample").value = asked.resample ?? 1;
    } else {
      $("#strength").value = asked.strength;
      $("#strength").oninput();
      $("#encode-as").value = asked.encode_as ?? "";
      this.arrange();
    }
    await this.load(data(asked.picture), data(asked.mask));
  }
}

async function brought(source, [channels, h, w]) {  // [an image cropped and resized on a canvas, the image as it was]
  const image = new Image();
  image.src = source;
  await image.decode();
  const scale = Math.min(image.width / w, image.height / h);
  const canvas = make("canvas", {width: w, height: h}), pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, w, h);
  pen.drawImage(image, (image.width - w * scale) / 2, (image.height - h * scale) / 2, w * scale, h * scale, 0, 0, w, h);
  if (channels === 1) {
    const grey = pen.getImageData(0, 0, w, h), {data} = grey;
    for (let i = 0; i < data.length; i += 4) data[i] = data[i + 1] = data[i + 2] = Math.round(.299 * data[i] + .587 * data[i + 1] + .114 * data[i + 2]);
    pen.putImageData(grey, 0, 0);
  }
  return [canvas, image];
}

const contentOf = file => new Promise(done => { const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(file); });

async function testImage(number, what) {  // of the test split, or what a model is told of it, as a data URL
  const answer = await fetch(`picture?run=${ways[0].fields.run.value}&number=${number}&what=${what}`);
  if (!answer.ok) throw new Error((await answer.json()).message);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return "data:image/png;base64," + btoa(String.fromCharCode(...bytes));
}

const bare = canvas => canvas.toDataURL("image/png").split(",")[1];

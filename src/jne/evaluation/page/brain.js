// The interactive brain: nilearn's copy of niivue draws; this chooses what. Voxel values are 16-bit
// steps from `low` to `high` of their measure; 65535 stands for a missing value.
(() => {
  const box = document.getElementById("brain");
  if (!box) return;
  const part = (selector) => box.querySelector(selector);
  const control = (key) => part(`[data-key=${key}]`);
  const [canvas, bar] = box.querySelectorAll("canvas");
  const at = part(".at");
  const MISSING = 65535, ZOOM = 1.45, GREY = [[219, 219, 219], [184, 184, 184]];
  const VIEWS = {
    surface: {
      "both, behind and below": ["both", 0, -30], "both, from behind": ["both", 0, 0],
      "both, from above": ["both", 0, 90], "both, from below": ["both", 180, -90],
      "left, lateral": ["left", 90, 0], "left, medial": ["left", 270, 0],
      "right, lateral": ["right", 270, 0], "right, medial": ["right", 90, 0],
    },
    volume: { "three slices": 3, axial: 0, coronal: 1, sagittal: 2, "in space": 4 },
  };

  // Light from the viewer, and little shade: colours stay those of the bar.
  const SHADER = `#version 300 es
    precision highp int; precision highp float;
    uniform float opacity; in vec4 vClr; in vec3 vN; out vec4 color;
    void main() { color = vec4(vClr.rgb * (0.7 + 0.3 * abs(normalize(vN).z)), opacity); }`;

  let data, nv, subject, measure, meshes = [], overlay = null;
  const fill = (select, names) => {
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name)));
    if (names.includes(before)) select.value = before;
  };
  const value = (steps, k, of = measure) => (steps[k] === MISSING ? NaN
    : of.low + (steps[k] / (MISSING - 1)) * (of.high - of.low));
  // Of measures of nonlinearity, only the voxels that are nonlinear, where the reader wants that.
  const visible = (values) => {
    const mask = subject.measures.find(({ name }) => name === "nonlinear");
    if (!(mask && subject.mask && measure.masked && control("mask").checked)) return () => true;
    return (k) => value(values.nonlinear, k, mask) > 0.5;
  };
  const threshold = () => {
    const share = Number(control("threshold").value) / 100;
    return share === 0 ? -Infinity : share * measure.top;
  };
  const colour = (x) => {
    const lut = data.luts[measure.cmap];
    const k = Math.round(255 * Math.min(Math.max(x / measure.top, 0), 1));
    return lut.subarray(3 * k, 3 * k + 3);
  };
  const number = (x) => (Number.isNaN(x) ? "no value" : Number(x.toPrecision(3)).toString());

  // --- surfaces ---
  const valuesAt = (side) => {
    const here = subject[side], isVisible = visible(here.values);
    const found = new Float32Array(data.meshes[subject.mesh][side].sulcus.length).fill(NaN);
    const steps = here.values[measure.name];
    if (steps) here.at.forEach((vertex, k) => { if (isVisible(k)) found[vertex] = value(steps, k); });
    return found;
  };
  const colours = (side) => {
    const { sulcus } = data.meshes[subject.mesh][side];
    const values = valuesAt(side), from = threshold();
    const rgba = new Uint8Array(4 * sulcus.length);
    for (let v = 0; v < sulcus.length; v += 1) {
      rgba.set(values[v] >= from ? colour(values[v]) : GREY[sulcus[v]], 4 * v);
      rgba[4 * v + 3] = 255;
    }
    return rgba;
  };
  // Bands along the border of regions: through the middles of edges whose ends differ.
  const outlines = (side, points, faces) => {
    const label = new Uint16Array(points.length / 3);
    subject[side].at.forEach((vertex, k) => { label[vertex] = subject[side].roi[k]; });
    const corners = [];
    const p = (v) => [points[3 * v], points[3 * v + 1], points[3 * v + 2]];
    const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const add = (a, b, s = 1) => a.map((x, i) => x + s * b[i]);
    const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((x) => x / n); };
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = faces.subarray(f, f + 3);
      if (label[a] === label[b] && label[b] === label[c]) continue;
      const normal = unit(cross(add(p(b), p(a), -1), add(p(c), p(a), -1)));
      const middles = [[a, b], [b, c], [c, a]].filter(([i, j]) => label[i] !== label[j])
        .map(([i, j]) => add(p(i), p(j)).map((x) => x / 2));
      const centre = middles.length === 3 ? middles.reduce((s, m) => add(s, m)).map((x) => x / 3) : null;
      const ends = centre ? middles.map((m) => [m, centre]) : [middles];
      ends.forEach(([from, to]) => {
        const across = unit(cross(add(to, from, -1), normal)).map((x) => 0.35 * x);
        const [g, h] = [from, to].map((end) => add(end, normal, 0.5));
        corners.push(add(g, across), add(h, across), add(h, across, -1), add(g, across, -1));
      });
    }
    const tris = new Uint32Array(corners.length / 4 * 6);
    for (let q = 0; q < corners.length / 4; q += 1) tris.set([0, 1, 2, 0, 2, 3].map((i) => 4 * q + i), 6 * q);
    return [new Float32Array(corners.flat()), tris];
  };
  const addMesh = (points, faces, rgba) => {
    const mesh = new niivue.NVMesh(points, faces, "", rgba, 1, true, nv.gl);
    nv.addMesh(mesh);
    nv.setMeshShader(mesh.id, "Viewer");
    return mesh;
  };
  const build = () => {
    [...nv.meshes].forEach((mesh) => nv.removeMesh(mesh));
    meshes = [];
    const surface = control("surface").value;
    const [which, azimuth, elevation] = VIEWS.surface[control("view").value];
    const flat = surface === "flat";
    for (const side of flat || which === "both" ? ["left", "right"] : [which]) {
      const shape = data.meshes[subject.mesh][side][surface];
      const points = Float32Array.from(shape.points, (x) => x / 100);
      const xs = points.filter((_, i) => i % 3 === 0);
      const edge = side === "left" ? -3 - xs.reduce((m, x) => Math.max(m, x), -Infinity)
        : 3 - xs.reduce((m, x) => Math.min(m, x), Infinity);
      for (let i = 0; i < points.length; i += 3) points[i] += edge;
      const faces = Uint32Array.from(shape.faces);
      meshes.push({ side, points, mesh: addMesh(points, faces, colours(side)) });
      if (control("outlines").checked) {
        const [lines, tris] = outlines(side, points, faces);
        if (tris.length) addMesh(lines, tris, new Uint8Array([20, 20, 20, 255]));
      }
    }
    nv.setRenderAzimuthElevation(...(flat ? [0, 90] : [azimuth, elevation]));
  };
  // The vertex nearest to the viewer among those within a few pixels of the pointer.
  const pointedVertex = (event) => {
    const frame = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const { renderAzimuth, renderElevation } = nv.scene;
    const [m] = nv.calculateMvpMatrix(null, [0, 0, canvas.width, canvas.height], renderAzimuth, renderElevation);
    const along = (row, p, i) => m[row] * p[i] + m[row + 4] * p[i + 1] + m[row + 8] * p[i + 2] + m[row + 12];
    let best = [Infinity];
    meshes.forEach(({ side, points }) => {
      for (let i = 0; i < points.length; i += 3) {
        const [across, up, depth] = [0, 1, 2].map((row) => along(row, points, i));
        const off = Math.hypot((across + 1) / 2 * frame.width - x, (1 - up) / 2 * frame.height - y);
        if (off < 5 && depth < best[0]) best = [depth, side, i / 3];
      }
    });
    return best.slice(1);
  };
  const pointedOnSurface = (event) => {
    const [side, vertex] = pointedVertex(event);
    if (!side) return "";
    const k = subject[side].at.indexOf(vertex);
    if (k < 0) return `${side} hemisphere, vertex ${vertex}: no voxel`;
    const steps = subject[side].values[measure.name];
    const roi = data.rois[subject[side].roi[k]] || "no region";
    return `${roi}, ${side} hemisphere, vertex ${vertex}: ${measure.label} ${number(steps ? value(steps, k) : NaN)}`;
  };

  // --- volumes ---
  const nifti = (image) => {
    const bytes = new Uint8Array(subject.header.length + 4 * image.length);
    bytes.set(subject.header);
    bytes.set(new Uint8Array(image.buffer), subject.header.length);
    return bytes.buffer;
  };
  const volumeValues = () => {
    const image = new Float32Array(subject.size).fill(NaN), isVisible = visible(subject.values);
    const steps = subject.values[measure.name];
    if (steps) subject.at.forEach((voxel, k) => { if (isVisible(k)) image[voxel] = value(steps, k); });
    return image;
  };
  const loadVolume = async () => {
    [...nv.volumes].forEach((volume) => nv.removeVolume(volume));
    const back = new Float32Array(subject.size);
    subject.at.forEach((voxel) => { back[voxel] = 60; });
    if (subject.background) back.set(subject.background);
    await nv.loadFromArrayBuffer(nifti(back), "background.nii");
    await nv.loadFromArrayBuffer(nifti(volumeValues()), "values.nii");
    nv.volumes[0].cal_min = 0;
    nv.volumes[0].cal_max = 255;
    overlay = nv.volumes[1];
  };
  const paintVolume = () => {
    const lut = data.luts[measure.cmap];
    const channel = (c) => Array.from({ length: 256 }, (_, k) => lut[3 * k + c]);
    nv.addColormap(measure.cmap + "_", { R: channel(0), G: channel(1), B: channel(2),
      A: Array(256).fill(255), I: Array.from({ length: 256 }, (_, k) => k) });
    const from = threshold();
    overlay.img = volumeValues().map((x) => (x >= from ? Math.max(x, 1e-6 * measure.top) : NaN));
    overlay.colormap = measure.cmap + "_";
    overlay.cal_min = 0;
    overlay.cal_max = measure.top;
    nv.updateGLVolume();
    nv.setSliceType(VIEWS.volume[control("view").value]);
  };
  const pointedInVolume = (location) => {
    const [nx, ny] = subject.shape;
    const [x, y, z] = location.vox;
    const [i, j, k] = [x, y, z].map((at, axis) => at + subject.corner[axis]);
    const found = subject.at.indexOf(x + nx * (y + ny * z));
    if (found < 0) return `i, j, k = ${i}, ${j}, ${k}: no voxel`;
    const steps = subject.values[measure.name];
    const roi = data.rois[subject.roi[found]] || "no region";
    return `${roi}, i, j, k = ${i}, ${j}, ${k}: ${measure.label} ${number(steps ? value(steps, found) : NaN)}`;
  };

  // --- controls ---
  const kind = () => (subject.mesh ? "surface" : "volume");
  const choose = () => {
    measure = subject.measures.find(({ label }) => label === control("measure").value) || subject.measures[0];
    part("[data-mask]").hidden = !(subject.mask && measure.masked);
    part("[data-mask] span").textContent = subject.mask;
    const from = threshold();
    part("output").textContent = from === -Infinity ? "nothing hidden" : number(from);
    const paint = bar.getContext("2d");
    const image = paint.createImageData(256, 1);
    const lut = data.luts[measure.cmap];
    for (let k = 0; k < 256; k += 1) image.data.set([...lut.subarray(3 * k, 3 * k + 3), 255], 4 * k);
    paint.putImageData(image, 0, 0);
    bar.previousElementSibling.textContent = measure.low < 0 ? "≤ 0" : "0";
    bar.nextElementSibling.textContent = measure.high > measure.top ? `≥ ${number(measure.top)}` : number(measure.top);
  };
  const repaint = () => {
    choose();
    if (kind() === "volume") paintVolume();
    else {
      meshes.forEach(({ side, mesh }) => { mesh.rgba255 = colours(side); mesh.updateMesh(nv.gl); });
      nv.drawScene();
    }
  };
  const rebuild = async (name) => {
    subject = data.subjects.find((one) => one.name === name) || data.subjects[0];
    fill(control("measure"), subject.measures.map(({ label }) => label));
    fill(control("view"), Object.keys(VIEWS[kind()]));
    box.querySelectorAll("[data-surface]").forEach((label) => { label.hidden = kind() !== "surface"; });
    choose();
    if (kind() === "volume") {
      [...nv.meshes].forEach((mesh) => nv.removeMesh(mesh));
      await loadVolume();
      paintVolume();
    } else {
      [...nv.volumes].forEach((volume) => nv.removeVolume(volume));
      nv.setSliceType(4);
      fill(control("surface"), data.meshes[subject.mesh].surfaces);
      build();
    }
  };
  const start = async () => {
    try {
      const code = new TextDecoder().decode(await unpacked("niivue"));
      const script = document.createElement("script");
      script.textContent = code;
      document.head.append(script);
      data = await readPacked("brain-data");
      const back = getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).map((x) => x / 255);
      // The page scrolls over the brain until the brain is clicked; then the wheel zooms.
      canvas.addEventListener("wheel", (event) => {
        if (document.activeElement !== canvas) event.stopImmediatePropagation();
      }, { capture: true });
      nv = new niivue.Niivue({ show3Dcrosshair: false, backColor: [...back, 1], isOrientCube: false,
        crosshairWidth: 0.5, dragAndDropEnabled: false, loadingText: "", isColorbar: false, logLevel: "error" });
      await nv.attachToCanvas(canvas);
      if (!nv.gl) throw new Error("no WebGL 2");
      nv.onLocationChange = (location) => {
        if (kind() === "volume") at.textContent = pointedInVolume(location);
      };
      canvas.addEventListener("click", (event) => {
        if (kind() === "surface") at.textContent = pointedOnSurface(event) || at.textContent;
      });
      nv.setCustomMeshShader(SHADER, "Viewer");
      nv.setScale(ZOOM);
      await rebuild();
      at.textContent = kind() === "volume" ? "Click a voxel to read it." : "Drag to turn; click to read a vertex.";
    } catch (error) {
      part(".stage").hidden = part(".controls").hidden = part(".bar").hidden = true;
      at.textContent = `The brain cannot be drawn in this browser (${error.message}). Static pictures are in the section Maps.`;
      return;
    }
    for (const key of ["measure", "threshold", "mask"]) control(key).addEventListener("input", repaint);
    for (const key of ["view", "surface", "outlines"]) {
      control(key).addEventListener("change", () => (kind() === "volume" ? paintVolume() : build()));
    }
    const named = control("subject");
    if (named) {
      named.addEventListener("change", () => rebuild(named.value));
      document.addEventListener("subject", ({ detail }) => {
        const there = [...named.options].some(({ value: name }) => name === detail);
        if (there && named.value !== detail) rebuild(named.value = detail);
      });
    }
    part("[data-act=reset]").addEventListener("click", () => {
      control("threshold").value = 0;
      control("mask").checked = true;
      nv.setScale(ZOOM);
      rebuild(named?.value);
    });
    part("[data-act=save]").addEventListener("click", () => {
      nv.drawScene();
      canvas.toBlob((blob) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(blob);
        link.download = `${subject.name}_${measure.name}.png`;
        link.click();
      });
    });
    const large = part("[data-act=large]");
    large.addEventListener("click", () => {
      const on = box.classList.toggle("large");
      large.setAttribute("aria-pressed", String(on));
      large.textContent = on ? "Smaller" : "Larger";
      nv.resizeListener?.();
    });
    box.dataset.ready = "true";
  };
  addEventListener("load", () => setTimeout(start, 50)); // after the first paint
})();

// The Tools tab in the browser: steps that are kept while they do not change, forms, the panel.
// All HTML here was made by the server from escaped text; only data attributes it wrote act.
(() => {
  const glm = window.glm;
  const $ = (selector, root = document) => root.querySelector(selector);
  let trigger = () => {}, ready = false, copied = "";

  // ---- steps ----
  function patch(box, known, rows) {
    const keys = new Set(rows.map((row) => row.key));
    for (const [key, entry] of known) if (!keys.has(key)) { entry.node.remove(); known.delete(key); }
    let before = null;
    for (const row of rows) {
      let entry = known.get(row.key);
      if (!entry) {
        entry = { node: document.createElement("div"), html: "" };
        known.set(row.key, entry);
      }
      entry.node.className = `step k-${row.kind || "model"}`;
      if (entry.html !== row.html) {
        const open = [...entry.node.querySelectorAll("details")].map((fold) => fold.open);
        entry.node.innerHTML = entry.html = row.html;
        entry.node.querySelectorAll("details").forEach((fold, at) => { if (at in open) fold.open = open[at]; });
      }
      const place = before ? before.nextSibling : box.firstChild;
      if (place !== entry.node) box.insertBefore(entry.node, place);
      before = entry.node;
    }
  }
  glm.steps = (element, props, watch) => {
    const box = document.createElement("div"), known = new Map();
    box.className = "steps";
    element.after(box);
    new ResizeObserver(() => follow()).observe(box); // a picture has its height when it is decoded
    const read = () => {
      let rows;
      try { rows = JSON.parse(props.value || "[]"); } catch { return; }
      patch(box, known, rows);
      follow();
      const form = $("form.decide:not(.seen-by-you)", box);
      if (form) { form.classList.add("seen-by-you"); form.scrollIntoView({ block: "nearest" }); }
    };
    watch("value", read);
    read();
  };
  let stuck = true;
  function follow(now) {
    const box = $("#t-scroll");
    if (!box) return;
    if (now) stuck = true;
    if (document.body.classList.contains("t-blank")) box.scrollTop = 0;
    else if (stuck) box.scrollTop = box.scrollHeight;
  }

  // ---- the state of the tab, and the events it sends ----
  glm.tools = (element, send, props, watch) => {
    trigger = send;
    const read = () => {
      let data;
      try { data = JSON.parse(props.value || "{}"); } catch { return; }
      if (data.busy === undefined) return;
      document.body.classList.toggle("t-busy", data.busy);
      document.body.classList.toggle("t-blank", data.blank);
      document.body.classList.remove("t-stopping");
      if (data.conversation !== undefined) glm.address("tools", data.conversation);
      glm.name();
      follow(true);
    };
    watch("value", read);
    read();
    if (ready) return;
    ready = true;
    document.addEventListener("click", clicked);
    document.addEventListener("change", changed);
    document.addEventListener("submit", submitted);
    document.addEventListener("focusin", (event) => event.target.closest("#t-composer") && flush());
    document.addEventListener("keydown", (event) => {
      const form = event.target.closest?.("form.decide");
      if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit($(".go", form));
    });
    glm.there("#t-scroll", 1, () => {
      const box = $("#t-scroll");
      let hand = 0; // when a visitor last moved something; steps that grow scroll as well
      for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"])
        box.addEventListener(kind, () => { hand = performance.now(); }, { passive: true });
      box.addEventListener("scroll", () => {
        if (box.scrollHeight - box.scrollTop - box.clientHeight < 60) stuck = true;
        else if (performance.now() - hand < 800) stuck = false;
      }, { passive: true });
    });
  };

  const number = (text) => Number(text || 0);
  function clicked(event) {
    const hit = event.target.closest("[data-act]");
    if (!hit) {
      if (event.target.closest("#t-composer .stop-button")) document.body.classList.add("t-stopping");
      return;
    }
    const data = hit.dataset, node = number(data.node), act = data.act;
    if (act === "t-example") ask({ kind: "example", id: data.id });
    if (act === "t-retry") ask({ kind: "retry", node });
    if (act === "t-go") ask({ kind: "go", node });
    if (act === "t-branch") trigger("act", { node, step: number(data.step) });
    if (act === "t-xray") look({ kind: "xray", node });
    if (act === "t-sides") look({ kind: "sides", node });
    if (act === "t-fork") look({ kind: "fork", node, call: data.call });
    if (act === "t-rewrite") look({ kind: "rewrite", node });
    if (act === "t-copy") copy(hit);
    if (act === "t-ask") edit(hit, node);
    if (act === "t-write") { event.preventDefault(); write(hit); } // it becomes the button that submits
    if (act === "t-json") raw(hit.closest("form"), hit);
    if (act === "t-file") trigger("save", { kind: "file", name: data.name });
    if (act === "t-save-tape") trigger("save", { kind: "tape" });
    if (act === "t-remove-tool") trigger("paste", { kind: "remove", name: data.name });
    if (act === "t-approve") trigger("server", { act: "approve", name: data.name, tool: data.tool || "", digest: data.digest || "" });
    if (act === "t-remove-server") glm.confirmed(data.name, () => trigger("server", { act: "remove", name: data.name }));
    if (act === "t-unisolated") trigger("isolate", {});
    if (act === "t-model") { note({ field: "model", name: "", value: data.model }); flush(); }
    if (act === "t-halt") trigger("halt", { name: data.name });
    if (act === "t-all") everyTool(data.on === "1");
  }
  function ask(data) {
    glm.closeAll();
    flush();
    trigger("ask", data);
  }
  function look(data) {
    const body = $("#t-sheet-body");
    body?.classList.add("stale");
    glm.show("t-sheet", true);
    trigger("look", data);
    $("#t-sheet .i-close")?.focus();
  }
  function copy(hit) {
    const step = hit.closest(".step"), from = $(".answer, .thought p, .card pre", step);
    glm.copy(hit, from ? from.innerText : "");
  }
  function edit(hit, node) {
    const step = hit.closest(".step"), said = $(".said", step);
    if ($(".editor", step)) return;
    glm.editor(step, said.textContent, (text) => ask({ kind: "edit", node, text }));
  }

  // ---- deciding about a call ----
  function values(form) {
    if (form.hasAttribute("data-raw")) return { json: $("[name=json]", form).value };
    const out = {};
    form.querySelectorAll("[data-arg]").forEach((field) => {
      out[field.dataset.arg] = field.type === "checkbox" ? field.checked : field.value;
    });
    return { values: out };
  }
  function write(hit) {
    const box = $(".written", hit.form), area = $("textarea", box);
    box.hidden = false;
    area.focus();
    hit.type = "submit";
    hit.name = "action";
    hit.value = "write";
    hit.textContent = hit.dataset.then;
    hit.classList.add("go");
    hit.removeAttribute("data-act");
    $("[value=run]", hit.form)?.classList.remove("go");
  }
  function raw(form, link) {
    if (form.hasAttribute("data-raw")) return;
    const area = $("[name=json]", form);
    let known = {};
    try { known = JSON.parse(area.value); } catch { /* keep what the fields say */ }
    const now = values(form).values;
    for (const [name, value] of Object.entries(now)) {
      if (value === "" && !(name in known)) continue;
      try { known[name] = name in known && typeof known[name] !== "string" ? JSON.parse(value) : value; }
      catch { known[name] = value; }
    }
    area.value = JSON.stringify(known, null, 2);
    form.setAttribute("data-raw", "");
    $(".fields", form).hidden = true;
    $(".raw", form).hidden = false;
    link?.remove();
  }
  function submitted(event) {
    const form = event.target;
    if (form.matches("form.decide")) decide(event, form);
    else if (form.matches(".try-form")) {
      event.preventDefault();
      const slot = $(".tried", form.parentElement);
      slot.innerHTML = '<span class="spin"></span>';
      form.classList.add("running");
      trigger("attempt", { name: form.dataset.name, ...values(form) });
    } else if (form.matches(".paste-form")) {
      event.preventDefault();
      flush();
      const text = $("textarea", form).value;
      if (form.dataset.kind === "server") trigger("server", { act: "add", text });
      else trigger("paste", { kind: form.dataset.kind, text });
    }
  }
  function decide(event, form) {
    event.preventDefault();
    const data = {
      kind: form.dataset.kind, call: form.dataset.call, action: event.submitter?.value || "run",
      name: $("[name=name]", form)?.value || "", text: $("[name=text]", form)?.value || "", ...values(form),
    };
    const node = number(form.dataset.node);
    if (node) return ask({ ...data, node });
    form.classList.add("sent");
    setTimeout(() => form.classList.remove("sent"), 1500);
    trigger("decide", data);
  }

  // ---- the panel ----
  let changes = [], timer = 0;
  function flush() {
    clearTimeout(timer);
    const root = $("#t-cards [data-setup]");
    if (timer && root) trigger("set", { base: root.dataset.setup, changes });
    timer = 0;
  }
  function changed(event) {
    const field = event.target;
    if (field.matches("form.decide [name=name]")) raw(field.form, $("[data-act=t-json]", field.form));
    if (field.dataset?.visitors) trigger("visitors", { name: field.dataset.visitors, on: field.checked });
    if (!field.dataset?.set) return;
    const value = field.type === "checkbox" ? field.checked : field.value;
    if (field.dataset.set === "enabled") counted(field);
    note({ field: field.dataset.set, name: field.dataset.name || "", value });
  }
  function note(change) {
    const root = $("#t-cards [data-setup]");
    if (root && root !== note.root) { note.root = root; changes = []; }
    changes.push(change);
    clearTimeout(timer);
    timer = setTimeout(flush, 120);
  }
  function counted(field) {
    field.closest(".tool").classList.toggle("on", field.checked);
    const on = document.querySelectorAll("#t-cards [data-set=enabled]:checked").length;
    $("#t-cards [data-count]").textContent = on;
  }
  function everyTool(on) {
    document.querySelectorAll("#t-cards [data-set=enabled]:not(:disabled)").forEach((field) => {
      if (field.checked === on) return;
      field.checked = on;
      counted(field);
      note({ field: "enabled", name: field.dataset.name, value: on });
    });
  }

  // ---- what the server answers outside the conversation ----
  glm.reply = (props, watch) =>
    watch("value", () => {
      let data;
      try { data = JSON.parse(props.value || "{}"); } catch { return; }
      if (data.tried) {
        const card = [...document.querySelectorAll("#t-cards .tool")].find((one) => one.dataset.tool === data.tried);
        if (card) $(".tried", card).innerHTML = data.html;
        if (card) $(".try-form", card)?.classList.remove("running");
      }
      if (data.pasted) pasted(data);
      if (data.save) save(data);
      if (data.toast) toast(data.toast);
    });
  function pasted(data) {
    const form = $(`.paste-form[data-kind=${data.pasted}]`);
    $(".why", form?.parentElement)?.remove();
    if (data.problem && form) {
      const why = document.createElement("p");
      why.className = "why";
      why.setAttribute("role", "alert");
      why.textContent = data.problem;
      form.before(why);
    } else if (form) {
      form.parentElement.open = false;
      if (data.toast) toast(data.toast);
      setTimeout(() => {
        const card = [...document.querySelectorAll("#t-cards .tool")].find((one) => one.dataset.tool === data.name);
        card?.scrollIntoView({ block: "nearest" });
        card?.classList.add("new");
      }, 150);
    }
  }
  function save(data) {
    const bytes = Uint8Array.from(atob(data.base64), (letter) => letter.charCodeAt(0));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes]));
    link.download = data.save;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function toast(text) {
    const box = document.createElement("div");
    box.className = "toast";
    box.setAttribute("role", "status");
    box.textContent = text;
    document.body.append(box);
    setTimeout(() => box.remove(), 4000);
  }
})();

// What the browser does by itself: footers under messages, drawers and dialogs, light and dark,
// following the answer. Buttons get their listeners here, one by one, so nothing a model writes
// can act; all text goes in through textContent.
(() => {
  const glm = (window.glm = {});
  const $ = (selector, root = document) => root.querySelector(selector);
  let words = {}, turns = { history: [], live: [] }, act = () => {}, upload = null;

  // ---- small pieces ----
  function make(tag, kind, text) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text) node.textContent = text;
    return node;
  }
  function button(icon, label, run, pressed) {
    const node = make("button", `icon i-${icon}`);
    node.type = "button";
    node.title = label;
    node.setAttribute("aria-label", label);
    if (pressed !== undefined) node.setAttribute("aria-pressed", pressed);
    node.addEventListener("click", () => run(node));
    return node;
  }
  const show = (name, on) => document.body.classList.toggle(`show-${name}`, on);
  const shown = (name) => document.body.classList.contains(`show-${name}`);
  const sheets = ["side", "drawer", "xray", "models", "t-sheet"];
  const closeAll = () => sheets.forEach((name) => show(name, false));
  const narrow = () => window.matchMedia("(max-width: 760px)").matches;

  // ---- light and dark ----
  function paint() {
    const chosen = localStorage.getItem("glm-theme");
    const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
  }
  function flip() {
    const dark = !document.body.classList.contains("dark");
    localStorage.setItem("glm-theme", dark ? "dark" : "light");
    paint();
  }

  // ---- footers ----
  function footer(row) {
    const bar = make("div", "turn");
    const mine = row.role === "user";
    if (row.branch && row.branch[1] > 1) bar.append(branches(row));
    bar.append(button("copy", words.copy, (node) => copy(node, row.text)));
    bar.append(button("edit", words.edit, () => edit(bar, row)));
    if (mine && row.unanswered) {
      const again = make("button", "pill again", words.again);
      again.addEventListener("click", () => act("again", { kind: "retry", node: row.node }));
      bar.append(again);
    }
    if (!mine) {
      for (const mark of ["like", "dislike"])
        bar.append(button(mark, words[mark], () => judge(row, mark), row.mark === mark));
      if (row.last) {
        bar.append(button("retry", words.retry, () => act("again", { kind: "retry", node: row.node })));
        bar.append(button("undo", words.undo, () => act("act", { kind: "undo", node: row.node })));
      }
      if (row.xray) bar.append(button("eye", words.xray, () => lookInside(row.node)));
      if (row.model) bar.append(make("span", "by", row.model));
      if (row.note) bar.append(make("span", "note", row.note));
      if (row.figures) bar.append(make("span", "figures", row.figures));
    }
    return bar;
  }
  function branches(row) {
    const [at, count] = row.branch;
    const box = make("span", "branches");
    const go = (step) => () => act("act", { kind: "branch", node: row.node, step });
    const before = button("before", words.before, go(-1));
    const after = button("after", words.after, go(1));
    before.disabled = at === 1;
    after.disabled = at === count;
    box.append(before, make("span", "", `${at} / ${count}`), after);
    return box;
  }
  async function copy(node, text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    node.classList.add("i-done");
    node.title = words.copied;
    setTimeout(() => { node.classList.remove("i-done"); node.title = words.copy; }, 1500);
  }
  function judge(row, mark) {
    row.mark = row.mark === mark ? null : mark;
    act("act", { kind: "judge", node: row.node, mark: row.mark });
    decorate();
  }
  function lookInside(node) {
    const body = $("#xray .sheet-body:last-child");
    if (body) body.classList.add("stale");
    show("xray", true);
    act("xray", { node });
    $("#xray .i-close")?.focus();
  }
  function edit(bar, row) {
    const box = bar.closest(".flex-wrap"), mine = row.role === "user";
    if ($(".editor", box)) return;
    editor(box, row.text, (text) => act("again", { kind: "edit", node: row.node, text }), mine);
  }
  function editor(box, text, run, mine = true) {
    const form = make("form", "editor"), area = make("textarea");
    area.value = text;
    area.setAttribute("aria-label", words.edit);
    const send = make("button", "pill go", mine ? words.send : words.save);
    const cancel = make("button", "pill", words.cancel);
    cancel.type = "button";
    const end = () => { form.remove(); box.classList.remove("editing"); };
    const fit = () => { area.style.height = "auto"; area.style.height = `${area.scrollHeight + 2}px`; };
    cancel.addEventListener("click", end);
    area.addEventListener("input", fit);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && mine) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end();
      run(area.value);
    });
    const line = make("div", "row");
    line.append(cancel, send);
    form.append(area, line);
    box.classList.add("editing");
    box.prepend(form);
    fit();
    area.focus();
  }
  function decorate() {
    for (const part of ["history", "live"]) {
      const rows = turns[part] || [];
      document.querySelectorAll(`#${part} .message-row`).forEach((box, at) => {
        const row = rows[at], place = $(".flex-wrap", box) || box, old = $(".turn", box);
        if (!row || row.node === null) return old?.remove();
        row.last = part === "live" && at === rows.length - 1;
        const sign = JSON.stringify([row, words.copy]);
        if (old && old.dataset.sign === sign) return;
        const bar = footer(row);
        bar.dataset.sign = sign;
        old?.remove();
        place.append(bar);
      });
    }
  }

  function there(selector, count, run) {
    if (document.querySelectorAll(selector).length >= count) run();
    else requestAnimationFrame(() => there(selector, count, run));
  }

  // ---- the parts that the server makes ----
  glm.turns = (element, trigger, props, watch) => {
    act = trigger;
    document.body.dataset.tab = tab;
    if (tab !== "chat") there(`#tab-${tab}-button`, 1, () => go(tab));
    const read = () => {
      let data;
      try { data = JSON.parse(props.value || "{}"); } catch { return; }
      if (data.words) { words = data.words; document.documentElement.lang = words.code; document.body.classList.add("ready"); paint(); }
      if (data.live) {
        turns = data;
        const empty = !data.busy && !data.history.length && !data.live.length;
        document.body.classList.toggle("blank", empty);
        document.body.classList.toggle("busy", !!data.busy);
        document.body.classList.remove("stopping");
        follow(true);
      }
      if (data.conversation !== undefined && !data.busy) address("chat", data.conversation);
      name();
      decorate();
    };
    watch("value", read);
    read();
    there("#scroll, #dock, #composer", 3, () => {
      let due = false;
      new MutationObserver(() => {
        if (due || document.body.classList.contains("busy")) return;
        due = true;
        requestAnimationFrame(() => { due = false; decorate(); });
      }).observe($("#scroll"), { childList: true, subtree: true });
      scrolling();
      dropping();
      attaching();
      name();
      decorate();
    });
  };
  function name() {
    for (const box of document.querySelectorAll(".w-composer")) {
      $("[data-testid=upload-button]", box)?.setAttribute("aria-label", words.attach || "");
      $("[data-testid=upload-button]", box)?.setAttribute("title", words.attach || "");
      $(".submit-button", box)?.setAttribute("aria-label", words.send || "");
      $(".stop-button", box)?.setAttribute("aria-label", words.stop || "");
    }
  }

  // ---- tabs, and the address of what is open in them ----
  const opened = {}, openers = {};
  const belongs = (id) => (id.startsWith("tools-") ? "tools" : "chat");
  const current = () => new URL(location.href).searchParams;
  let tab = current().get("tab") || belongs(current().get("c") || "");
  function address(where, id) {
    opened[where] = id;
    if (where !== tab) return;
    const url = new URL(location.href), before = url.search;
    if (id) url.searchParams.set("c", id); else url.searchParams.delete("c");
    if (tab !== "chat" && !id) url.searchParams.set("tab", tab); else url.searchParams.delete("tab");
    if (url.search !== before) history.pushState(null, "", url);
  }
  const tabButton = (where) => $(`#tab-${where}-button`);
  function go(where) {
    const button = tabButton(where);
    if (button && button.getAttribute("aria-selected") !== "true") button.click();
  }
  function tabbed(event) {
    const where = /^tab-(.+)-button$/.exec(event.target.closest("[role=tab]")?.id || "")?.[1];
    if (!where || where === tab) return;
    tab = where;
    closeAll();
    document.body.dataset.tab = tab;
    address(tab, opened[tab] || "");
    setTimeout(name, 50);
    glm.visited();
  }
  glm.list = (element, trigger, where) => {
    openers[where] = (id) => trigger("open", { id });
    element.addEventListener("click", (event) => {
      const hit = event.target.closest("[data-do]"), row = event.target.closest(".side-row");
      if (!hit || !row) return;
      const id = row.dataset.id, title = $(".side-open", row).textContent;
      if (hit.dataset.do === "open") { trigger("open", { id }); if (narrow()) show("side", false); }
      if (hit.dataset.do === "rename") retitle(row, title, (title) => trigger("rename", { id, title }));
      if (hit.dataset.do === "remove") confirmed(title, () => trigger("remove", { id }));
    });
  };
  function retitle(row, title, run) {
    const field = make("input", "side-title");
    field.value = title;
    let open = true;
    const end = (keep) => {
      if (!open) return;
      open = false;
      field.remove();
      if (keep && field.value.trim() && field.value !== title) run(field.value);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true);
      if (event.key === "Escape") end(false);
    });
    field.addEventListener("blur", () => end(true));
    row.append(field);
    field.focus();
    field.select();
  }
  function confirmed(title, run) {
    const box = make("dialog", "confirm");
    const line = make("div", "row");
    const no = make("button", "pill", words.cancel), yes = make("button", "pill danger", words.delete);
    const end = () => { box.close(); box.remove(); };
    no.addEventListener("click", end);
    yes.addEventListener("click", () => { end(); run(); });
    box.addEventListener("cancel", () => box.remove());
    line.append(no, yes);
    box.append(make("p", "", (words.confirm || "").replace("{title}", title)), line);
    document.body.append(box);
    box.showModal();
    yes.focus();
  }
  glm.hero = (element, trigger) =>
    element.addEventListener("click", (event) => {
      const hit = event.target.closest(".example");
      if (hit) trigger("ask", { text: hit.textContent });
    });
  glm.top = (element, trigger) =>
    element.addEventListener("click", (event) => {
      const hit = event.target.closest("[data-do]");
      if (!hit) return;
      if (hit.dataset.do === "theme") flip();
      if (hit.dataset.do === "settings") tab === "tools" && !narrow() ? show("less", !shown("less")) : show("drawer", !shown("drawer"));
      if (hit.dataset.do === "menu") narrow() ? show("side", !shown("side")) : show("wide", !shown("wide"));
      if (hit.dataset.do === "language") {
        const lang = words.code === "en" ? "zh" : "en";
        document.cookie = `glm_lang=${lang}; path=/; max-age=31536000; SameSite=Lax`;
        trigger("language", { lang });
      }
    });

  // ---- following the answer ----
  let stuck = true;
  function follow(now) {
    const box = $("#scroll");
    if (now) stuck = true;
    if (box && stuck) box.scrollTop = box.scrollHeight;
    document.body.classList.toggle("above", !stuck);
  }
  function scrolling() {
    const box = $("#scroll");
    const down = button("latest", words.latest || "", () => follow(true));
    $("#dock").prepend(down);
    let hand = 0; // when a visitor last moved something; an answer being redrawn scrolls as well
    const moved = () => { hand = performance.now(); };
    for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"])
      box.addEventListener(kind, moved, { passive: true });
    const look = () => {
      if (box.scrollHeight - box.scrollTop - box.clientHeight < 40) stuck = true;
      else if (performance.now() - hand < 800) stuck = false;
      document.body.classList.toggle("above", !stuck);
    };
    box.addEventListener("scroll", look, { passive: true });
    let due = false;
    const soon = () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => { due = false; follow(); });
    };
    new ResizeObserver(soon).observe(box);
    new MutationObserver(soon).observe(box, { childList: true, subtree: true, characterData: true });
  }

  // ---- files dropped anywhere ----
  function dropping() {
    let depth = 0;
    const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    const cover = make("div", "drop");
    document.body.append(cover);
    const cue = (on) => { cover.textContent = words.drop || ""; document.body.classList.toggle("dropping", on); };
    addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; cue(true); } });
    addEventListener("dragleave", (event) => { if (files(event) && --depth <= 0) { depth = 0; cue(false); } });
    addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      if (!files(event)) return;
      depth = 0;
      cue(false);
      if (event.target.closest(".w-composer")) return;
      event.preventDefault();
      glm.attach([...event.dataTransfer.files]);
    });
  }
  // Tells the server when the attached files changed, not with every key.
  function attaching() {
    let known = 0;
    const look = () => {
      const now = document.querySelectorAll("#composer .thumbnail-item").length;
      if (now === known) return;
      known = now;
      setTimeout(() => act("files", {}), 60);
    };
    new MutationObserver(look).observe($("#composer"), { childList: true, subtree: true });
  }
  glm.attach = (files) => {
    const box = tab === "tools" ? "#t-composer" : "#composer";
    const field = $(`${box} input[type=file]`), carry = new DataTransfer();
    if (!field) return;
    files.forEach((file) => carry.items.add(file));
    field.files = carry.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // ---- saving ----
  glm.save = (element, trigger) =>
    element.addEventListener("click", (event) => {
      const hit = event.target.closest("[data-kind]");
      if (hit) trigger("save", { kind: hit.dataset.kind });
    });
  glm.saved = (props, watch) =>
    watch("value", () => {
      const file = JSON.parse(props.value || "{}");
      if (!file.text) return;
      const link = make("a");
      link.href = URL.createObjectURL(new Blob([file.text], { type: "text/plain;charset=utf-8" }));
      link.download = file.name;
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });

  // ---- the page ----
  document.addEventListener("click", (event) => {
    const hit = event.target.closest("[data-do]");
    const what = hit?.dataset.do;
    if (what === "close") closeAll();
    if (what === "models") { go("chat"); show("models", true); }
    if (what === "manage" || what === "choose") { closeAll(); go("models"); }
    if (what === "choose") glm.look(hit.dataset.id);
    if (event.target.closest("#composer .stop-button")) document.body.classList.add("stopping");
    if (event.target.closest(".w-new") && narrow()) show("side", false);
    tabbed(event);
    const out = !event.target.closest(".sheet, .w-side, .w-drawer, dialog, [data-do], [data-act], .turn");
    if (out && document.contains(event.target) && (shown("xray") || shown("models") || shown("t-sheet") || narrow())) closeAll();
  });
  document.addEventListener("change", (event) => {
    if (event.target.closest(".xray-ids")) event.target.closest(".sheet").classList.toggle("no-ids", !event.target.checked);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeAll(); });
  addEventListener("popstate", () => {
    const id = current().get("c") || "", where = current().get("tab") || belongs(id);
    if (where !== tab) { tab = where; document.body.dataset.tab = tab; go(where); }
    openers[where]?.(id);
  });
  Object.assign(glm, { go, show, closeAll, copy, confirmed, editor, there, name, address });
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    setTimeout(() => document.body.classList.add("ready"), 4000);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
})();

// The Models tab in the browser, and the selectors of a model beside the message fields.
// All HTML here was made by the server from escaped text; only data attributes it wrote act.
(() => {
  const glm = window.glm;
  const $ = (selector, root = document) => root.querySelector(selector);
  let send = () => {}, choose = () => {}, ready = false, wanted = "";

  // ---- what others do to the models shows within seconds ----
  const refreshers = {};
  let quiet = 0; // until then a choice is on its way, and an older look must not undo it
  const tab = () => document.body.dataset.tab;
  function refresh() {
    const where = tab(), busy = document.body.classList.contains(where === "tools" ? "t-busy" : "busy");
    if (performance.now() < quiet || document.visibilityState !== "visible" || (busy && where !== "models")) return;
    if (document.activeElement?.closest(".w-choice, #m-export form, #m-now button")) return;
    refreshers[where]?.();
  }
  setInterval(refresh, 5000);
  setInterval(() => tab() === "models" && $("#m-now .loading") && refresh(), 1000);
  addEventListener("focus", refresh);
  document.addEventListener("visibilitychange", refresh);
  document.addEventListener("focusin", (event) => event.target.closest(".w-composer") && refresh());

  // ---- the selectors ----
  glm.choice = (element, trigger) => {
    const where = element.closest("#tools") ? "tools" : "chat";
    refreshers[where] = () => trigger("refresh", {});
    if (where === "tools") return; // tools.js sends what is chosen there with the other switches
    choose = (model) => {
      quiet = performance.now() + 1200;
      setTimeout(refresh, 1300);
      trigger("choose", { model });
    };
    element.addEventListener("change", (event) => {
      if (event.target.matches("[data-choice]")) choose(event.target.value);
    });
    document.addEventListener("click", (event) => {
      const hit = event.target.closest("#gone [data-choose]");
      if (hit) choose(hit.dataset.choose);
    });
  };

  // ---- the tab ----
  glm.models = (element, trigger) => {
    send = trigger;
    let listed = false;
    refreshers.models = () => {
      send("refresh", {});
      if (!listed && $("#m-form form")) { listed = true; send("finds", {}); }
    };
    if (ready) return;
    ready = true;
    document.addEventListener("click", clicked);
    document.addEventListener("submit", submitted);
    document.addEventListener("change", changed);
    glm.there("#m-added, #m-now section", 2, () => {
      new MutationObserver(() => $("#m-added .done") && $("#m-add form")?.reset())
        .observe($("#m-added"), { childList: true, subtree: true });
      if (tab() === "models") refresh();
      if (wanted) glm.there("#m-form [name=at]", 1, () => glm.look(wanted));
    });
  };
  function reveal(selector) {
    const box = $(selector), top = box.getBoundingClientRect().top;
    if (top < 40 || top > innerHeight * 0.6) box.scrollIntoView({ block: "start" });
  }
  glm.visited = () => setTimeout(refresh, 30);
  glm.look = (at) => {
    const field = $("#m-form [name=at]");
    wanted = field && ready ? "" : at; // the tab may not have been made yet
    if (wanted) return;
    field.value = at;
    send("look", { at });
    reveal("#m-opening");
  };

  function clicked(event) {
    const hit = event.target.closest("#m-page [data-act]");
    if (!hit) return;
    const data = hit.dataset, act = data.act, at = data.at;
    if (act === "m-unload") send("aside", {});
    if (act === "m-back") send("back", {});
    if (act === "m-look") glm.look(at);
    if (act === "m-open") begin({ at });
    if (act === "m-drop") send("folder", { drop: at });
    if (act === "m-use") { glm.go("chat"); choose(data.model); }
    if (act === "m-forget") send("forget", { name: data.name });
    if (act === "m-add") {
      const form = $("#m-add form");
      form.elements.at.value = at;
      form.scrollIntoView({ block: "center" });
      send("attach", { at, name: "" });
    }
  }
  function begin(data) {
    send("begin", data);
    reveal("#m-opening");
  }
  function submitted(event) {
    const form = event.target;
    if (!form.matches("#m-page form[data-form]")) return;
    event.preventDefault();
    const values = { ...form.dataset, ...Object.fromEntries(new FormData(form)) };
    const kind = values.form;
    delete values.form;
    if (kind === "look") glm.look(values.at);
    if (kind === "open") begin({ ...values, unload: values.unload === "on" });
    if (kind === "folder") { send("folder", { at: values.at }); form.reset(); }
    if (kind === "adapter") send("attach", values);
    if (kind === "export") send("write", values);
  }

  // ---- the export form says what it would write ----
  function changed(event) {
    const form = event.target.closest("#m-export form");
    if (!form) return;
    const target = form.elements.target.value;
    form.querySelectorAll("[data-for]").forEach((hint) => { hint.hidden = hint.dataset.for !== target; });
    const folder = form.elements.folder, name = [form.dataset.base, form.elements.adapter.value, target];
    if (event.target !== folder && (!folder.value || folder.value === folder.dataset.own))
      folder.value = folder.dataset.own = name.filter(Boolean).join("-").replace(/[^\w.-]+/g, "-");
    if (event.target === folder) delete folder.dataset.own;
  }
})();

// What screen readers and keyboards need and the theme leaves out, as axe-core reports it.
document.addEventListener("DOMContentLoaded", () => {
  const set = (selector, name, value) => {
    for (const element of document.querySelectorAll(selector)) {
      element.setAttribute(name, typeof value === "function" ? value(element) : value);
    }
  };
  set('.caption[role="heading"]', "aria-level", "2");
  set("pre, .table-wrapper", "tabindex", "0"); // they scroll
  set(".sphx-glr-thumbcontainer a", "aria-label", (link) => link.textContent);
  set(".sidebar-drawer", "aria-label", "Pages");
  set(".toc-drawer", "aria-label", "This page");
});

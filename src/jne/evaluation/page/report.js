"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const said = document.getElementById("said");
  const say = (text) => {
    said.textContent = text;
    said.classList.add("shown");
    setTimeout(() => said.classList.remove("shown"), 1800);
  };
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  // As in the CSV files beside the page: text that a spreadsheet would run gets an apostrophe.
  const formula = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]./s;
  const cell = (c) => {
    const text = c.textContent.trim();
    return !c.classList.contains("n") && formula.test(text) ? `'${text}` : text;
  };
  const cells = (table) => all("tr", table).map((row) => all("th,td", row).map(cell));
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  // Tables: each heading sorts; numbers by value, with missing ones last.
  const sort = (heading) => {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") !== "descending";
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = heading.classList.contains("n");
    const key = (row) => {
      const text = row.cells[column].textContent.trim();
      return number ? parseFloat(text) : text;
    };
    const rows = all("tbody tr", table).map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (!number) return (down ? -1 : 1) * a.localeCompare(b, undefined, { numeric: true });
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return down ? b - a : a - b;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  all("thead th").forEach((heading) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(heading));
  });
  all(".tools").forEach((tools) => {
    tools.hidden = false;
    const table = tools.parentElement.querySelector("table");
    tools.addEventListener("click", async ({ target }) => {
      if (target.dataset.act === "copy") {
        const text = cells(table).map((row) => row.join("\t")).join("\n");
        try {
          await navigator.clipboard.writeText(text);
          say("Table copied");
        } catch {
          say("The browser does not allow copying; take the CSV");
        }
      } else if (target.dataset.act === "csv") {
        const text = cells(table).map((row) => row.map(quoted).join(",")).join("\n");
        save(new Blob([text + "\n"], { type: "text/csv" }), `${target.dataset.name}.csv`);
      }
    });
  });

  // A picture is in the page: it can be saved also where the folder of the report is not.
  all("a[data-act=png]").forEach((link) => {
    link.addEventListener("click", () => {
      link.href = link.closest("figure").querySelector("img").src;
    });
  });

  // Several subjects: one at a time, or all.
  const choice = document.getElementById("subject");
  const showSubject = () => {
    all("[data-subject]").forEach((block) => {
      block.hidden = choice.value !== "" && block.dataset.subject !== choice.value;
    });
    document.dispatchEvent(new CustomEvent("subject", { detail: choice.value }));
  };
  if (choice) {
    choice.addEventListener("change", showSubject);
    showSubject();
  }

  // The table of contents follows the page.
  const links = new Map(all("nav li a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      const at = entries.filter((entry) => entry.isIntersecting).pop();
      if (!at) return;
      links.forEach((link) => { link.classList.remove("here"); link.removeAttribute("aria-current"); });
      const link = links.get(at.target.id);
      link.classList.add("here");
      link.setAttribute("aria-current", "true");
    },
    { rootMargin: "-10% 0px -75% 0px" },
  );
  all("main > section").forEach((section) => seen.observe(section));

  // Paper shows what is open: open the tables for it, and close them again.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
})();

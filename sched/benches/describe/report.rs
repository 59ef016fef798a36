//! The report of a bench: one page of HTML with the table and a chart of throughput over time for each workload.

use std::fmt::Write;
use std::path::Path;

/// A page that grows by the measured workloads.
pub(crate) struct Report {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    charts: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: &str, columns: &[&'static str]) -> Self {
        let (rows, charts) = (Vec::new(), Vec::new());
        Report { title: title.to_owned(), columns: columns.to_vec(), rows, charts }
    }

    pub(crate) fn add(&mut self, row: Vec<String>, chart: Option<String>) {
        self.rows.push(row);
        self.charts.extend(chart);
    }

    /// Writes the page.
    pub(crate) fn write(&self, file: &Path) {
        let mut page = String::new();
        let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
            cells.map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect::<String>()
        };
        let _ = write!(
            page,
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{0}</title>\n<style>body{{font-family:sans-serif}}\
             td,th{{padding:2px 10px;text-align:right}}td:first-child{{text-align:left}}svg{{width:48%}}</style>\n<h1>{0}</h1>\n<table>\n",
            escape(&self.title)
        );
        let _ = writeln!(page, "<tr>{}</tr>", cells("th", &mut self.columns.iter().copied()));
        for row in &self.rows {
            let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
        }
        page.push_str("</table>\n");
        self.charts.iter().for_each(|chart| page.push_str(chart));
        std::fs::write(file, page).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Draws how much was placed in each slice of time, as a rate.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
pub(crate) fn chart(title: &str, seconds_per_slice: f64, slices: &[usize]) -> String {
    let rate = |n: usize| n as f64 / seconds_per_slice;
    let most = slices.iter().map(|n| rate(*n)).fold(1.0, f64::max);
    let step = 760.0 / slices.len().max(2) as f64;
    let points: Vec<String> = slices
        .iter()
        .enumerate()
        .map(|(at, n)| format!("{:.1},{:.1}", 30.0 + step * at as f64, 270.0 - 240.0 * rate(*n) / most))
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 300\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <text x=\"30\" y=\"16\">{}, up to {most:.0}/s; {:.2} s in all</text>\n\
         <path d=\"M30 30V270H790\" fill=\"none\" stroke=\"gray\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"steelblue\"/>\n</svg>\n",
        escape(title),
        seconds_per_slice * slices.len() as f64,
        points.join(" "),
    )
}

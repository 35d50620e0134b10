//! Parts of pages that come out of the code: a test makes such a part anew and holds the page to it.
//!
//! In the page it stands between `<!-- generated: NAME -->` and `<!-- generated: end -->`. Tests of several crates use this file
//! (`#[path]`), because what they describe is theirs.

use std::{fs, path::Path};

/// Fails if the part of a page, named from the repository's root, isn't `content`. With `GAMUT_WRITE_DOCS=1` it writes it
/// there instead: read the difference before you commit it.
pub(crate) fn holds(page: &str, name: &str, content: &str) {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|path| path.join("docs/SUMMARY.md").exists());
    let path = root.expect("the repository's root").join(page);
    let text = fs::read_to_string(&path).expect(page);
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no line {begin}"));
    let (found, after) = rest.split_once("<!-- generated: end -->").expect("where the part ends");
    let content = format!("\n{}\n\n", content.trim());
    if found == content {
        return;
    }
    if std::env::var_os("GAMUT_WRITE_DOCS").is_some() {
        let text = format!("{before}{begin}{content}<!-- generated: end -->{after}");
        fs::write(&path, text).expect("the page is written");
        return;
    }
    let missing: Vec<&str> = content.lines().filter(|line| !found.contains(line)).collect();
    let outdated: Vec<&str> = found.lines().filter(|line| !content.contains(line)).collect();
    panic!(
        "{page}, part {name}, isn't what the code says; run this test again with GAMUT_WRITE_DOCS=1 to write it anew\n\
         missing: {missing:#?}\noutdated: {outdated:#?}"
    );
}

//! What a page shows of a terminal: commands, and the shape of what they print. Numbers, ages and the random parts of names may
//! differ, words may not; `...` stands for whatever there may be: lines where it is a line, text inside one.

/// A command of a page and what it shows of its output.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
}

impl Step {
    /// Whether what was printed has the shape of what the page shows.
    pub(crate) fn is_printed(&self, printed: &str) -> bool {
        let expected: Vec<String> = self.output.iter().map(|line| normal(line)).collect();
        let found: Vec<String> = printed.lines().map(normal).collect();
        contains(&found, &expected)
    }
}

/// The `console` blocks of a page: lines with `$` are commands (`\` at the end goes on), what stands below is output.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut goes_on) = (false, false);
    for line in page.lines() {
        match (line, inside) {
            ("```console", false) => inside = true,
            ("```", true) => inside = false,
            (line, true) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    goes_on = command.ends_with('\\');
                    steps.push(Step {
                        command: command.trim_end_matches('\\').to_owned(),
                        output: Vec::new(),
                    });
                }
                (None, Some(step)) if goes_on => {
                    goes_on = line.ends_with('\\');
                    step.command += line.trim_end_matches('\\').trim_start();
                }
                (None, Some(step)) => step.output.push(line.to_owned()),
                (None, None) => panic!("output before any command: {line}"),
            },
            _ => {}
        }
    }
    steps
}

/// A line without what differs from run to run: every number is `N` (a version too: whom the split chooses is chance),
/// the two random parts of a pod's name are `*`, ages have one unit, columns are one space apart.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| numberless(&podless(word)));
    let line = words.collect::<Vec<_>>().join(" ");
    ["NdNh", "NhNm", "NmNs", "Nms", "Nd", "Nh", "Nm"].iter().fold(line, |line, age| line.replace(age, "Ns"))
}

/// A word whose end is the name of a Deployment's pod, such as `shop/web-v1-7mgmpv4xfk-dlr6b`, with `*` for what is random.
fn podless(word: &str) -> String {
    let end = word.trim_end_matches([':', ',', ';', ')']);
    let mut parts = end.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(pod), Some(template), Some(workload))
            if pod.len() == 5 && (8..=10).contains(&template.len()) =>
        {
            format!("{workload}-*{}", word.strip_prefix(end).unwrap_or_default())
        }
        _ => word.to_owned(),
    }
}

fn numberless(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // The dot of `0.9`, and no other.
            '.' if out.ends_with('N') && rest.peek().is_some_and(char::is_ascii_digit) => {}
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

/// Whether the lines stand there one below the other, where `...` stands for any others.
fn contains(found: &[String], expected: &[String]) -> bool {
    let mut found = found.iter();
    let mut skip = false;
    for line in expected {
        if line == "..." {
            skip = true;
            continue;
        }
        let is_there = if skip {
            found.any(|found| is(found, line))
        } else {
            found.next().is_some_and(|found| is(found, line))
        };
        if !is_there {
            return false;
        }
        skip = false;
    }
    skip || found.next().is_none()
}

/// Whether a line is as expected, where `...` stands for any text.
fn is(found: &str, expected: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[test]
fn shapes_are_compared_and_not_numbers() {
    let pod = |random: &str| format!("shop/web-v1-{random}: 12m old, 23h47m left");
    assert_eq!(normal(&pod("7mgmpv4xfk-dlr6b")), normal(&pod("abcdefghij-klmno")));
    assert_eq!(normal(&pod("7mgmpv4xfk-dlr6b")), normal(&pod("5d89f6c7-x2x4q")), "as a real Kubernetes' are");
    assert_ne!(normal("web-v1-7mgmpv4xfk-dlr6b"), normal("web-v2b-7mgmpv4xfk-dlr6b"));
    assert_eq!(normal("12m old, 23h47m left"), normal("3s old,   23h59m left"));
    assert_eq!(normal("10.3%"), normal("9%"));
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(contains(&lines("a b c d"), &lines("a ... d")));
    assert!(contains(&lines("a b"), &lines("a ...")));
    assert!(!contains(&lines("a b c"), &lines("a c")));
    assert!(!contains(&lines("a b"), &lines("a")));
    assert!(is("cookie=AQxy; Path=/", "cookie=AQ...; Path=/") && !is("cookie=AQxy", "cookie=AQ...; Path=/"));
    assert!(is("a1b2c", "a...b...c") && !is("a1c", "a...b...c"));
}

#[test]
fn a_page_is_read_as_its_reader_types_it() {
    let page = "text\n```console\n$ one \\\n  more\n12 lines\n$ two\n```\n```sh\n$ not this\n```";
    let steps = steps(page);
    let commands: Vec<&str> = steps.iter().map(|step| &*step.command).collect();
    assert_eq!(commands, ["one more", "two"]);
    assert!(steps[0].is_printed("9 lines\n") && !steps[0].is_printed("9 words\n"));
}

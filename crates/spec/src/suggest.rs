//! Suggests the nearest known name for an unknown one ("did you mean ...?").

/// Minimum Jaro-Winkler similarity of a suggested name.
const SIMILAR: f64 = 0.8;

/// The known name that `name` was probably meant to be. `min_events` finds `minEvents`.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let wanted = plain(name);
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &plain(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// How to fix an unknown name: the nearest known name or, if there is none, `otherwise`.
pub fn fix<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    nearest(name, known).map_or_else(|| otherwise.to_owned(), |candidate| format!("did you mean {candidate:?}?"))
}

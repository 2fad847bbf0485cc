//! Dates and times of tables as the column `study_datetime` has them.

use dataset::format::record_checks;

/// A date and a time as DICOM writes them, `20110307` and `140509.531`. The time may lack leading zeros, as that of a table
/// that was written with numbers does. `None` where there is no such date; a time that is none is left out.
pub fn of_dicom(date: Option<&str>, time: Option<&str>) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A table of numbers may have `20110307.0`.
    let whole = |text: &str| text.trim().split('.').next().filter(|text| is_number(text)).map(str::to_owned);
    let date = whole(date?).filter(|date| date.len() == 8)?;
    let date = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
    record_checks::datetime(&date).ok()?;
    let time = time.and_then(whole).filter(|time| time.len() <= 6).map(|time| format!("{time:0>6}"));
    let both = time.map(|time| format!("{date}T{}:{}:{}", &time[..2], &time[2..4], &time[4..]));
    Some(both.filter(|both| record_checks::datetime(both).is_ok()).unwrap_or(date))
}

/// A date, or a date and a time, in a form that cannot be mistaken: `2021-03-07`, `2021/03/07`, `20210307`, `07.03.2021`;
/// after it a blank or `T` and `14:05`, `14:05:09.5` or `140509`. A zone is left out. `None` for any other text, also for
/// `03/07/2021`, which may be March or July.
pub fn of_text(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, time) = text.split_once(['T', ' ']).map_or((text, None), |(date, time)| (date, Some(time.trim())));
    let parts: Vec<&str> = date.split(['-', '/', '.']).collect();
    let date = match parts.as_slice() {
        [all] => (*all).to_owned(),
        [year, month, day] if year.len() == 4 && !date.contains('.') => format!("{year}{month:0>2}{day:0>2}"),
        [day, month, year] if year.len() == 4 && !date.contains(['-', '/']) => format!("{year}{month:0>2}{day:0>2}"),
        _ => return None,
    };
    let Some(time) = time else { return of_dicom(Some(&date), None) };
    let clock = time.split(['Z', '+', '-']).next().unwrap_or_default();
    let clock = clock.split('.').next().unwrap_or_default();
    let digits: String = match clock.split(':').collect::<Vec<_>>().as_slice() {
        [all] if all.len() == 6 => (*all).to_owned(),
        [hour, minute] => format!("{hour:0>2}{minute}00"),
        [hour, minute, second] => format!("{hour:0>2}{minute}{second}"),
        _ => return None,
    };
    of_dicom(Some(&date), Some(&digits)).filter(|both| both.contains('T') && digits.len() == 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_may_have_a_time_without_leading_zeros() {
        let of = |date, time| of_dicom(Some(date), time);
        assert_eq!(of("21100307", Some("140509.53100000001")).as_deref(), Some("2110-03-07T14:05:09"));
        assert_eq!(of("21100307.0", Some("80509.0")).as_deref(), Some("2110-03-07T08:05:09"));
        assert_eq!(of(" 21100307", Some("7")).as_deref(), Some("2110-03-07T00:00:07"));
        for time in [None, Some(""), Some("noon"), Some("250000"), Some("1234567"), Some("-1")] {
            assert_eq!(of("21100307", time).as_deref(), Some("2110-03-07"), "{time:?}");
        }
        for date in ["", "2110", "2110-03-07", "21101301", "21100230", "2110０３０７"] {
            assert_eq!(of(date, Some("1200")), None, "{date}");
        }
        assert_eq!(of_dicom(None, Some("1200")), None);
    }

    #[test]
    fn texts_of_one_meaning_are_dates() {
        for text in ["2021-03-07", "2021/3/7", "20210307", "07.03.2021", "7.3.2021", " 2021-03-07 "] {
            assert_eq!(of_text(text).as_deref(), Some("2021-03-07"), "{text}");
        }
        for text in [
            "2021-03-07T14:05:00",
            "2021-03-07 14:05",
            "20210307T140500",
            "07.03.2021 14:05:00.25",
            "2021-03-07T14:05:00Z",
            "2021-03-07T14:05:00+01:00",
        ] {
            assert_eq!(of_text(text).as_deref(), Some("2021-03-07T14:05:00"), "{text}");
        }
        for text in
            ["03/07/2021", "2021-13-01", "2021", "March 2021", "2021-03-07 noon", "2021-03-07 25:00", "", "2021-03"]
        {
            assert_eq!(of_text(text), None, "{text}");
        }
    }
}

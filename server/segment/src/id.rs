//! Names of segments and versions.

use trilith_proto::interval::{Interval, iso, parse_instant};

/// Druid's segment id: the partition number is left out when it is 0.
pub fn segment_id(datasource: &str, interval: &Interval, version: &str, partition_number: u32) -> String {
    let mut id = format!("{datasource}_{}_{}_{version}", iso(interval.start_ms), iso(interval.end_ms));
    if partition_number > 0 {
        id.push('_');
        id.push_str(&partition_number.to_string());
    }
    id
}

/// What a segment id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentId {
    /// Time chunk.
    pub interval: Interval,
    /// Version.
    pub version: String,
    /// Number within the chunk, from 0.
    pub partition_number: u32,
}

/// Reads a segment id of a known datasource; none when it is not one. A trailing number is the partition
/// number; only without it could it belong to the version.
pub fn parse_segment_id(datasource: &str, id: &str) -> Option<SegmentId> {
    let rest = id.strip_prefix(datasource)?.strip_prefix('_')?;
    let (start, rest) = rest.split_once('_')?;
    let (end, version) = rest.split_once('_')?;
    let interval = Interval::new(parse_instant(start)?, parse_instant(end)?);
    if interval.is_empty() || version.is_empty() {
        return None;
    }
    let numbered = version.rsplit_once('_').and_then(|(version, number)| {
        let canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number: u32 = number.parse().ok().filter(|_| canonical)?;
        Some((version, number))
    });
    let (version, partition_number) = numbered.unwrap_or((version, 0));
    (!version.is_empty()).then(|| SegmentId { interval, version: version.to_owned(), partition_number })
}

/// The version of what is written under a lock that was granted at `ms`. Later is higher, also as text.
pub fn version_text(ms: i64) -> String {
    iso(ms)
}

/// Milliseconds of a version; none when it is not an instant.
pub fn version_ms(version: &str) -> Option<i64> {
    parse_instant(version)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use trilith_proto::interval::ETERNITY;

    use super::*;

    #[test]
    fn ids_round_trip() {
        let day = Interval::parse("2016-06-27T00:00:00.000Z/2016-06-28T00:00:00.000Z").unwrap();
        let version = "2022-06-01T10:00:00.000Z";
        assert_eq!(
            segment_id("wikipedia", &day, version, 3),
            "wikipedia_2016-06-27T00:00:00.000Z_2016-06-28T00:00:00.000Z_2022-06-01T10:00:00.000Z_3"
        );
        for datasource in ["wikipedia", "a_b", "a_2016-06-27T00:00:00.000Z", "_"] {
            for interval in [day, ETERNITY] {
                for number in [0, 1, 12] {
                    let id = segment_id(datasource, &interval, version, number);
                    let expected =
                        SegmentId { interval, version: version.to_owned(), partition_number: number };
                    assert_eq!(parse_segment_id(datasource, &id), Some(expected), "{id}");
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_no_id() {
        let chunk = "2016-06-27T00:00:00.000Z_2016-06-28T00:00:00.000Z";
        for id in ["", "t", "t_", "t_a_b_c", &format!("t_{chunk}"), &format!("t_{chunk}_"), &format!("u_{chunk}_v")] {
            assert_eq!(parse_segment_id("t", id), None, "{id}");
        }
        let backwards = "t_2016-06-28T00:00:00.000Z_2016-06-27T00:00:00.000Z_v";
        assert_eq!(parse_segment_id("t", backwards), None);
        assert_eq!(parse_segment_id("t", &format!("t_{chunk}_v_01")).unwrap().version, "v_01");
    }
}

//! Bloom filters: the expected bytes are those of Druid's class, filled in Java.

use super::{check, fails};

const TEXTS: &str =
    "BAAAAAgAAAAAARAAQAAAAAAAAAIAABAAgEAwAgAABAAAIAAAAAAAAAEAIAAAiCAAAAAAEAAAQAAAAAAAAAAEBBiAAAAA";
const LONGS: &str =
    "BAAAAAgAAAAAAAQGAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAIAAAAAACAQAAIAAMAEAAAAFAAAIAAAAAEAABAAAA";
const DOUBLES: &str =
    "BAAAAAgAAAAAAAAEAAAAAAAQAQAAAAAAAAAAAAAAAIAAAAIAAAAAIAAAAAAAAAAAAAAMAEAAAABAAgIAKAAAEEAAAAAA";
const FLOATS: &str =
    "BAAAAAgAAAAAAABEAAAAAAAAQAAAAAAAAAAAAAAAAIAAAAgAAAACAgAAAAAAAAAAAAgEYAAAAABAAAAAAAIQAAAAAABg";
const EMPTY: &str =
    "BAAAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// A thousand texts of 29 to 38 bytes, not all of them ASCII.
const MANY_TEXTS: &str = "BAAAAGgCUWUmDdD2ylFOKOEATNOIQelAouPUkuFGDnJIinimwuSJioO142yxtfQpJOM5wWRaigJLBtuDGChDRgAhGMCQmTHFFPGggRKCgy8t7CYPqtQXofRBOdVMyK5m2pAO3m6CzhNioU1igObbMHSshhaX5c7CkF9e8EiwxGg+s5qJIiSpuoRBRKZIdRGoEeAZQ3zWosnAw0OsdeVcAEU3q8IFEhAkIfFgQiDISqBLhIfKtrzJkLvVOFPnPZDMLIdAqJKJE2ZwGjYGk+JEK2fboOR2lmOCMlP1JkMlxXPkA6GxGx5J2S8KEh5OzbthAXs3qIQNG3DlTDLQTJGSVdX8VheTrmGOufH2CIpHcMV8qRXk0C/P2nCogJi0WtQq04BipUb75o1eVu1ecX+9Jp7Mn4Ul+xu+zI7chgDl38HPRRwYciP8W6uKILxWCgbRQokHnrOLO+0HJ1k2ap/B+rJ6BOkI0Cv3U7wkmoSl6ONPaALbAxhvG3NktCibflUy8mByVjA62f9zIkTpsOArIUAH76h43NqCRdBlbQIQgbgOt1UyDMjAVVLMupFTXRIfqSo0/IrtlH4FHyAC8f7sDhEvT1n0nGBMNT6BbhhzgJR3IW4JzpWg4SBAAsIogp2hZhAqeolBRRBEu5Mpas4AbCRx8rnS6+GnmBaRh/l4YMhiERRUJKfjOzYqXfEssSQDgHx21eo9w7GOVbAUUdAESc3dNObxRDTYeuqYCi8l9Wmj46BDxrBLtz75+df96HM4C9At6aVLooQlVV8NEesx9ZqPZFlSurIykcythTK4pY5gPnc6h3AnILpzaSP4m8EtIREKQQsu5Dh6OyYwyS2pCI1RjxrJMFQ4PFJD1SFm3AGSWCJSQCCS8GMHAIjGwD0xpQodhCRgQ3IGmbVBILhHInNA2IRKPI7UsKsWAaPjDlMM4Z6mRV/huEYR7oMEhbWRZcwg8fmhDYxOjpJS1pmsBrFYUbhLAWR1HGU9yyjCAGEXxooWOBKEXaoA2j+OVxw3rMwkNcvt5VV6BjCsC0PhBBIDEyF4hPBrvQtgbVhZBKahRthAJP0CtZOHPSMbiQ1iigYf8S04MRgnpUPgM1EAHcgccde6";
/// A thousand large numbers.
const MANY_LONGS: &str = "BAAAAGh1+TobqQjY8+5VIWdtukvTSlNvJ47zwm3Hh44/3lKYZSjuEOxBqKMhCamv+d5gRvHhO7Yve74h/jgsl0vmxIp3IwmYQQybYBm8GhiYkmIktG+I3wg14AgYwZCdk6XFpA6COsIAF+DY30GhlshgAZEGkqmEwzYsR3OgwIiN3HqCZHToZFVoGDAcRwcJJooACYowsOwMRQRZOJHLOJeHhIwgA/tI4hEQBOXwCzj6G3hteuCk8SikMnB8AskQl0LGGh+d6GuDtKaGIQuRo2VcaBgORedHP5ADwk5NmMmCiONpQKtuhSEjNyCLg4vm9uSh26oELKQHUlQ/VyHAbYpKRIB1PDf3fxAPdIabzRljPCUgOnRPY97AwVMQc3uUMiATqhzjyDXOridBHYuWPjIV3M4AcgeXX3iiULLVsmLA4jXJE2rUxCtxIFomIFhoCA3cVP6BBBykbPQmoSGmJFc9bPICiEmEHoEaQZDCVaWaTtD4iaTRprRMC0EPQMA7ekcBYqSsOx6RMA/A73fgJCH7B4RsbbJntQScsUyIfYHgp2ZWSTOUUzjLrhL0Pfb9say2Ch/wKT4fIZWbQbycjfzoeaxlIvUGATCLAim1KfNIxVXjyBklXGFtR18hCE+qKW6KsJJS6J/lFVXnHjK4ORhmb+3S0wJckmK8mkGW4LS5Y2Ynj9At3mRDhouq5yKN0u2rUonCYTS/7zn2zwaYvNyOer50NJM0jImw8Ejz+pwttfBkCnPCxqD0o7JoukJrkXWy3i4a9hSyiVPGMuGUgcCACQVjyAYguYgPnVOxGyzweGYKYqZJUgCcXZFOwxGpJ5b71QdU0lHAwCHqVJAeSL1iqsFZlQ0aI523CU0JUYEUYZwwZyQo0hw3SgCIDAWIYeowAeH1Bk7hA4BxdgILiAkVgQaCYVCK6i4ewlAlrGBQSAgP0LnN+gM7gj8zFjRxf3Kc+5OS8XYx7O5/bJQ+JjBKZgmad10Kreicnt2JwMv5T17PLhVBeNNA2/s6NgO3gn0OXokwM7MvKDoAPvox/lSjxJ60NmKAdKiaVe1WnKawELkM5HIWxJBgcUUgpqEGugizhWIGuteUJClkThRaqs8Mc0Bt";

fn filter(value: &str, size: u32, from: &str) -> String {
    format!("druid_cast_varchar(bloom_filter({value}, {size})) FROM {from}")
}

#[tokio::test]
async fn filters_have_the_bytes_of_java() {
    let texts = "(VALUES (''), ('10.1'), ('2'), ('1'), ('def'), ('abc')) AS t(x)";
    let longs = "(VALUES (CAST(7 AS BIGINT)), (325323), (0), (NULL)) AS t(x)";
    let doubles = "(VALUES (1.0), (1.7), (0.0), (NULL)) AS t(x)";
    let many = "(SELECT unnest(generate_series(0, 999)) AS i)";
    let cases = [
        (filter("x", 10, texts), TEXTS),
        (filter("x", 10, longs), LONGS),
        (filter("x", 10, doubles), DOUBLES),
        (
            filter(
                "CAST(x AS FLOAT)",
                10,
                "(VALUES (1.0), (0.1), (0.0), (NULL)) AS t(x)",
            ),
            FLOATS,
        ),
        (filter("x", 10, &format!("{texts} WHERE x = 'none'")), EMPTY),
        (
            filter(
                "'a longer text of item number ' || CAST(i AS VARCHAR) || ' \u{e9}\u{1f600}'",
                1000,
                many,
            ),
            MANY_TEXTS,
        ),
        (filter("i * 1234567891011 - 99", 1000, many), MANY_LONGS),
        // Filters of parts are merged.
        (
            filter(
                "f",
                10,
                &format!("(SELECT bloom_filter(x, 10) AS f FROM {texts} GROUP BY length(x))"),
            ),
            TEXTS,
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(sql, bytes)| (sql.as_str(), *bytes)).collect();
    check(&cases).await;
}

#[tokio::test]
async fn values_are_found() {
    let found = |value: &str, filter: &str| format!("bloom_filter_test({value}, '{filter}')");
    let several = trilith_proto::multi_value::joined(&["nothing", "def"].map(|value| Some(value.to_owned())));
    let several = format!("'{}'", several.unwrap_or_default());
    let cases = [
        (found("'abc'", TEXTS), "true"),
        (found("''", TEXTS), "true"),
        (found("'abd'", TEXTS), "false"),
        (found(&several, TEXTS), "true"),
        (found("NULL", TEXTS), "false"),
        (found("NULL", LONGS), "true"),
        (found("7", LONGS), "true"),
        (found("8", LONGS), "false"),
        (found("1.7", DOUBLES), "true"),
        (found("1.6", DOUBLES), "false"),
        (found("'abc'", &format!("\"{TEXTS}\"")), "true"),
        (
            "bloom_filter_test('abc', f) FROM (SELECT bloom_filter(x, 10) AS f FROM (VALUES ('abc')) AS t(x))".to_owned(),
            "true",
        ),
        ("bloom_filter_test('abc', NULL)".to_owned(), "NULL"),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(sql, shown)| (sql.as_str(), *shown)).collect();
    check(&cases).await;
    fails(&[
        (
            "bloom_filter_test('abc', 'nonsense')",
            "is no bloom filter in base64",
        ),
        (
            "bloom_filter('abc', 0)",
            "between 1 and 10000000 as maxNumEntries",
        ),
        ("bloom_filter('abc', 'x')", "Cannot apply 'BLOOM_FILTER'"),
        (
            "bloom_filter('abc')",
            "Invalid number of arguments to function 'BLOOM_FILTER'",
        ),
        (
            "bloom_filter(f, 1000) FROM (SELECT bloom_filter(x, 10) AS f FROM (VALUES ('abc')) AS t(x))",
            "of different sizes cannot be merged",
        ),
    ])
    .await;
}

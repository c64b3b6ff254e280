//! IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use datafusion::common::ScalarValue;
use datafusion::error::Result;

use crate::function::{
    Args, Call, Function, is_text, returns_boolean, returns_long, returns_text, scalar_text,
};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("ipv4_match", (2, 2), returns_boolean, ipv4_match)
            .literals(&[1])
            .check(|call, literals| check(call, literals, |text| subnet::<Ipv4Addr>(text, 32).is_some()))
            .maps(),
        Function::new("ipv4_parse", (1, 1), returns_long, ipv4_parse).maps(),
        Function::new("ipv4_stringify", (1, 1), returns_text, ipv4_stringify).maps(),
        Function::new("ipv6_match", (2, 2), returns_boolean, ipv6_match)
            .literals(&[1])
            .check(|call, literals| check(call, literals, |text| subnet::<Ipv6Addr>(text, 128).is_some()))
            .maps(),
    ]
}

fn check(call: &Call<'_>, literals: &[Option<&ScalarValue>], fits: fn(&str) -> bool) -> Result<()> {
    match literals.get(1).copied().flatten() {
        None => Ok(()),
        Some(scalar) => match scalar_text(scalar) {
            Some(text) if fits(&text) => Ok(()),
            Some(text) => call.wrong(format!("subnet arg has an invalid format: {text}")),
            None => call.wrong("subnet arg must not be NULL"),
        },
    }
}

/// An address and the bits of it that count.
fn subnet<A: std::str::FromStr>(text: &str, bits: u32) -> Option<(A, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()?),
        None => (text, bits),
    };
    (length <= bits).then_some((address.parse().ok()?, length))
}

fn address_of(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}

fn addresses(args: &Args) -> Result<Vec<Option<u32>>> {
    if is_text(&args.data_type(0)) {
        return Ok(args
            .text(0)?
            .iter()
            .map(|text| text?.parse::<Ipv4Addr>().ok().map(u32::from))
            .collect());
    }
    Ok(args
        .long(0)?
        .iter()
        .map(|number| number.and_then(address_of))
        .collect())
}

fn ipv4_match(args: &Args) -> Result<ArrayRef> {
    let text = args.required(1)?;
    let Some((network, length)) = subnet::<Ipv4Addr>(&text, 32) else {
        return args.wrong(format!("subnet arg has an invalid format: {text}"));
    };
    let shift = 32 - length;
    let prefix = u32::from(network).checked_shr(shift).unwrap_or(0);
    let matches: BooleanArray = addresses(args)?
        .into_iter()
        .map(|address| {
            let inside = |address: u32| address.checked_shr(shift).unwrap_or(0) == prefix;
            Some(address.is_some_and(inside))
        })
        .collect();
    Ok(Arc::new(matches))
}

fn ipv4_parse(args: &Args) -> Result<ArrayRef> {
    let numbers: Int64Array = addresses(args)?
        .into_iter()
        .map(|address| address.map(i64::from))
        .collect();
    Ok(Arc::new(numbers))
}

fn ipv4_stringify(args: &Args) -> Result<ArrayRef> {
    let texts: StringArray = addresses(args)?
        .into_iter()
        .map(|address| address.map(|address| Ipv4Addr::from(address).to_string()))
        .collect();
    Ok(Arc::new(texts))
}

fn ipv6_match(args: &Args) -> Result<ArrayRef> {
    let text = args.required(1)?;
    let Some((network, length)) = subnet::<Ipv6Addr>(&text, 128) else {
        return args.wrong(format!("subnet arg has an invalid format: {text}"));
    };
    let shift = 128 - length;
    let prefix = u128::from(network).checked_shr(shift).unwrap_or(0);
    let inside = |text: &str| {
        let address = text.parse::<Ipv6Addr>().ok().map(u128::from);
        address.is_some_and(|address| address.checked_shr(shift).unwrap_or(0) == prefix)
    };
    let matches: BooleanArray = args
        .text(0)?
        .iter()
        .map(|text| Some(text.is_some_and(inside)))
        .collect();
    Ok(Arc::new(matches))
}

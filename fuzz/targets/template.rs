//! The argument of a command, with programs in it, and what these have given, divided by NULs.
#![no_main]

use evener_engine::jq::template::Template;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let Ok(template) = Template::compile(text) else { return };
    if let Ok(argument) = template.fill(parts) {
        assert!(!argument.contains('\0'), "an argument has no NUL");
        let by_value = template.literal().is_none() && argument.starts_with('-') && !text.starts_with('-');
        assert!(!by_value, "a value has become an option: {argument:?}");
    }
});

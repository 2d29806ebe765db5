//! A jq program and its input, divided by a NUL: what may run in the node takes little, whatever it is.
#![no_main]

use std::time::{Duration, Instant};

use evener_engine::jq::{Input, Limits, Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(divider) = bytes.iter().position(|byte| *byte == 0) else { return };
    let (program, input) = (&bytes[..divider], &bytes[divider + 1..]);
    let Ok(program) = std::str::from_utf8(program) else { return };
    let Ok(program) = Program::compile(program) else { return };
    if !program.is_bounded() {
        return;
    }
    let began = Instant::now();
    let given = program.run(Input::Json(input), &Limits::at_once());
    assert!(began.elapsed() < Duration::from_millis(500), "it took {:?}", began.elapsed());
    if let Ok(json) = given {
        assert!(std::str::from_utf8(&json).is_ok(), "what it gives is UTF-8");
    }
});

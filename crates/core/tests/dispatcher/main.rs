//! The dispatcher's behaviour, one kind of event at a time, by its public face alone.

mod admission;
mod ahead;
mod answers;
mod calls;
mod cancel;
mod deadline;
mod double;
mod drain;
mod fence;
mod path;
mod priority;
mod random;
mod retry;
mod scatter;
mod scatter_random;
mod stop;
mod withdraw;
mod workers;

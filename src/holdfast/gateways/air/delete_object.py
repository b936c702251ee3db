"""DELETE /delete/{bucket}/{name}?version=N.

Without a version the name is deleted: in a bucket that keeps versions the deletion is the next one, and the older ones
can still be read by their numbers. With a version that one is gone for good. What is not there is 404.
"""

from holdfast.gateways.air.call import SUCCESS, Answer, Call, json_answer, version
from holdfast.objects.errors import NoSuchVersion
from holdfast.objects.model import Conditions

_IF_THERE = Conditions(if_match="*")


async def delete_object(call: Call) -> Answer:
    number = version(call)
    if number is None:
        await call.store.delete_object(call.bucket, call.name, conditions=_IF_THERE)
    elif not (await call.store.delete_object(call.bucket, call.name, number)).existed:
        raise NoSuchVersion(f"there is no version {number}")
    return json_answer(200, {"message": SUCCESS, "time_taken": call.seconds()})
